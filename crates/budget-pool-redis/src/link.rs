//! [`Link`], a connection to the store, and [`Source`], from which a link has its connections. A link
//! connects anew where its connection ended.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script, ScriptInvocation, Value};

use crate::confirm::Confirm;
use crate::error::FleetError;
use crate::script::{Call, Keys, SOURCE, Words};

/// The store that the user named.
#[derive(Clone)]
pub(crate) struct Source {
    store: Store,
    /// The prefix of the keys of EscrowMint, where the free units of the wallet lie in its `state`.
    escrow: Option<String>,
}

// A client only makes connections, and a panic leaves none half made. So the features do not change
// what may cross a panic.
impl UnwindSafe for Source {}
impl RefUnwindSafe for Source {}

impl Source {
    #[cfg(feature = "escrowmint")]
    pub(crate) fn in_escrow(self, prefix: &str) -> Source {
        Source { escrow: Some(prefix.to_owned()), ..self }
    }

    pub(crate) fn is_escrow(&self) -> bool {
        self.escrow.is_some()
    }
}

#[derive(Clone)]
pub(crate) enum Store {
    Server(Client),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster::ClusterClient),
    /// Asked for the present primary at each new connection. `get_async_connection` takes it by
    /// `&mut`.
    #[cfg(feature = "sentinel")]
    Sentinel(std::sync::Arc<tokio::sync::Mutex<redis::sentinel::SentinelClient>>),
}

impl From<Client> for Source {
    fn from(client: Client) -> Source {
        Store::Server(client).into()
    }
}

impl From<Store> for Source {
    fn from(store: Store) -> Source {
        Source { store, escrow: None }
    }
}

pub(crate) struct Link {
    wallet: String,
    store: Store,
    keys: Keys,
    script: Script,
    timeout: Duration,
    connected: Option<Connected>,
    pub(crate) calls: u64,
}

struct Connected {
    connection: Connection,
    may_evict: Option<bool>,
}

enum Connection {
    Server(MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Connection {
    async fn invoke(&mut self, script: &ScriptInvocation<'_>) -> Result<Value, RedisError> {
        match self {
            Connection::Server(connection) => script.invoke_async(connection).await,
            #[cfg(feature = "cluster")]
            Connection::Cluster(connection) => script.invoke_async(connection).await,
        }
    }

    /// Whether the `maxmemory-policy` allows to evict a wallet; `None` if the store does not say.
    async fn may_evict(&mut self) -> Option<bool> {
        let infos = match self {
            Connection::Server(connection) => {
                vec![redis::cmd("INFO").arg("memory").query_async(connection).await.ok()?]
            }
            #[cfg(feature = "cluster")]
            Connection::Cluster(connection) => crate::cluster::memory(connection).await.ok()?,
        };
        let policies: Option<Vec<&str>> =
            infos.iter().map(|info: &String| field(info, "maxmemory_policy")).collect();
        let evicts = |policy: &&str| *policy != "noeviction" && !policy.starts_with("volatile");
        Some(policies?.iter().any(evicts))
    }
}

impl Link {
    /// # Errors
    /// As [`Keys::new`]: each way to a wallet leads through here.
    pub(crate) fn new(wallet: &str, source: Source, timeout: Duration) -> Result<Link, FleetError> {
        let Source { store, escrow } = source;
        let keys = match escrow {
            None => Keys::new(wallet)?,
            Some(prefix) => Keys::in_escrow(wallet, &prefix)?,
        };
        let (wallet, script) = (wallet.to_owned(), Script::new(SOURCE));
        Ok(Link { wallet, store, keys, script, timeout, connected: None, calls: 0 })
    }

    /// Connects where there is no connection. The empty name that it returns has the script ask the
    /// server on which it runs for its `run_id`.
    pub(crate) async fn run(&mut self) -> Result<String, FleetError> {
        if self.connected.is_none() {
            let connect = connect(&self.store);
            let connected = match tokio::time::timeout(self.timeout, connect).await {
                Ok(connected) => connected,
                Err(_) => return Err(self.timed_out()),
            };
            let connected =
                connected.map_err(|error| FleetError::store(self.wallet.clone(), error))?;
            self.connected = Some(connected);
        }
        Ok(String::new())
    }

    pub(crate) fn may_evict(&self) -> Option<bool> {
        self.connected.as_ref().and_then(|connected| connected.may_evict)
    }

    fn timed_out(&self) -> FleetError {
        let error = format!("no answer within {:?}", self.timeout);
        FleetError::Unreachable { wallet: self.wallet.clone(), since: Duration::ZERO, error }
    }

    /// Waits until the store cannot lose what the last [`call`](Link::call) wrote. A connection that
    /// was made since knows of no write, and would confirm anything.
    pub(crate) async fn confirm(&mut self, confirm: Confirm) -> Result<(), FleetError> {
        if confirm == Confirm::None {
            return Ok(());
        }
        let (wallet, within) = (self.wallet.clone(), confirm.within());
        let Some(connected) = self.connected.as_mut() else {
            return Err(FleetError::Unconfirmed { wallet, within });
        };
        let asked = match &mut connected.connection {
            Connection::Server(connection) => confirm.ask(connection),
            // It connects anew unseen.
            #[cfg(feature = "cluster")]
            Connection::Cluster(_) => {
                let error = "a cluster client does not say on which connection it wrote".to_owned();
                return Err(FleetError::CannotConfirm { wallet, error });
            }
        };
        let error = match tokio::time::timeout(within + self.timeout, asked).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => return Err(FleetError::Unconfirmed { wallet, within }),
            Ok(Err(error)) => FleetError::cannot_confirm(wallet, error),
            Err(_) => self.timed_out(),
        };
        self.connected = None;
        Err(error)
    }

    /// Calls the script. An answer that comes after `timeout` is never read: the connection ends
    /// with its call.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Words, FleetError> {
        self.run().await?;
        let reply = match self.connected.as_mut() {
            Some(connected) => {
                let mut invocation = self.script.prepare_invoke();
                self.keys.all().iter().for_each(|key| {
                    invocation.key(key);
                });
                call.0.iter().for_each(|argument| {
                    invocation.arg(argument);
                });
                self.calls += 1;
                let reply = connected.connection.invoke(&invocation);
                tokio::time::timeout(self.timeout, reply).await
            }
            None => return Err(self.timed_out()),
        };
        let words = match reply {
            Ok(reply) => Words::read(&self.wallet, reply),
            Err(_) => Err(self.timed_out()),
        };
        // A server that moved, was replaced, or answers with errors may not be the one any more.
        if matches!(words, Err(FleetError::Unreachable { .. } | FleetError::Store { .. })) {
            self.connected = None;
        }
        words
    }
}

async fn connect(store: &Store) -> Result<Connected, RedisError> {
    // The link has its own timeout, for a whole call.
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let mut connection = match store {
        Store::Server(client) => {
            Connection::Server(client.get_multiplexed_async_connection_with_config(&config).await?)
        }
        #[cfg(feature = "cluster")]
        Store::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        #[cfg(feature = "sentinel")]
        Store::Sentinel(client) => {
            let mut client = client.lock().await;
            Connection::Server(client.get_async_connection_with_config(&config).await?)
        }
    };
    let may_evict = connection.may_evict().await;
    Ok(Connected { connection, may_evict })
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
