//! [`Link`], a connection to the store. A link connects anew where its connection ended, and knows
//! the server that it leads to.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Script, Value};

use crate::confirm::Confirm;
use crate::error::FleetError;
use crate::script::{Call, Keys, SOURCE, Words};

pub(crate) struct Link {
    wallet: String,
    client: Client,
    keys: Keys,
    script: Script,
    timeout: Duration,
    connected: Option<Connected>,
    pub(crate) calls: u64,
}

struct Connected {
    connection: MultiplexedConnection,
    run: String,
    may_evict: Option<bool>,
}

impl Link {
    pub(crate) fn new(wallet: &str, client: Client, timeout: Duration) -> Link {
        let (keys, script) = (Keys::new(wallet), Script::new(SOURCE));
        Link { wallet: wallet.to_owned(), client, keys, script, timeout, connected: None, calls: 0 }
    }

    /// The `run_id` of the server that the connection leads to. A connection leads to one server
    /// process, so each new connection asks for the `run_id` again.
    pub(crate) async fn run(&mut self) -> Result<String, FleetError> {
        if self.connected.is_none() {
            let connect = connect(&self.client);
            let connected = match tokio::time::timeout(self.timeout, connect).await {
                Ok(connected) => connected,
                Err(_) => return Err(self.timed_out()),
            };
            let connected =
                connected.map_err(|error| FleetError::store(self.wallet.clone(), error))?;
            self.connected = Some(connected);
        }
        Ok(self.connected.as_ref().map(|connected| connected.run.clone()).unwrap_or_default())
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
        let asked = confirm.ask(&mut connected.connection);
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
                let reply = invocation.invoke_async::<Value>(&mut connected.connection);
                tokio::time::timeout(self.timeout, reply).await
            }
            None => return Err(self.timed_out()),
        };
        let words = match reply {
            Ok(reply) => Words::read(&self.wallet, reply),
            Err(_) => Err(self.timed_out()),
        };
        // A server that moved, was replaced, or answers with errors is asked who it is once more.
        if matches!(words, Err(FleetError::Unreachable { .. } | FleetError::Store { .. })) {
            self.connected = None;
        }
        words
    }
}

async fn connect(client: &Client) -> Result<Connected, redis::RedisError> {
    // The link has its own timeout, for a whole call.
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let run = field(&info, "run_id").unwrap_or_default().to_owned();
    let info: Result<String, _> =
        redis::cmd("INFO").arg("memory").query_async(&mut connection).await;
    let may_evict = info.ok().and_then(|info| {
        let policy = field(&info, "maxmemory_policy")?;
        Some(policy != "noeviction" && !policy.starts_with("volatile"))
    });
    Ok(Connected { connection, run, may_evict })
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
