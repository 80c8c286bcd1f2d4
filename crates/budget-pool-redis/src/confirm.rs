//! [`Confirm`], which says when the store cannot lose a grant any more.

use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;

use crate::member::millis;

/// What a grant waits for, after the store has booked it and before this process spends from it. For
/// [`FleetBuilder::confirm`](crate::FleetBuilder::confirm).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Confirm {
    /// For nothing. A store that loses a grant learns of it again from its member, if that lives.
    #[default]
    None,
    /// For `WAIT`: until so many replicas have the grant in memory.
    Replicas {
        /// The least number of replicas. A failover keeps the grant if it promotes one of them, so
        /// name as many as there are, or as many as leave no other to be promoted.
        least: u32,
        /// The time to wait for them: at least 1 ms, at most a third of the
        /// [`ttl`](crate::FleetBuilder::ttl).
        within: Duration,
    },
    /// For `WAITAOF`: until the server, and so many replicas, have written the grant to disk. It
    /// takes Redis 7.2, Valkey 7.2 or later, with `appendonly yes`.
    Aof {
        /// The least number of replicas, beside the server itself.
        replicas: u32,
        /// The time to wait for them: at least 1 ms, at most a third of the
        /// [`ttl`](crate::FleetBuilder::ttl). With `appendfsync everysec` a grant takes up to two
        /// seconds.
        within: Duration,
    },
}

impl Confirm {
    pub(crate) fn within(self) -> Duration {
        match self {
            Confirm::None => Duration::ZERO,
            Confirm::Replicas { within, .. } | Confirm::Aof { within, .. } => within,
        }
    }

    /// The same with at most `most` to wait. A time of 0 would wait for ever.
    pub(crate) fn at_most(self, most: Duration) -> Confirm {
        let bound = |time: Duration| time.min(most).max(Duration::from_millis(1));
        match self {
            Confirm::None => Confirm::None,
            Confirm::Replicas { least, within } => {
                Confirm::Replicas { least, within: bound(within) }
            }
            Confirm::Aof { replicas, within } => Confirm::Aof { replicas, within: bound(within) },
        }
    }

    /// Asks on the connection that wrote: the server waits for the writes of its own client.
    pub(crate) async fn ask(
        self,
        connection: &mut MultiplexedConnection,
    ) -> Result<bool, RedisError> {
        let millis = millis(self.within());
        match self {
            Confirm::None => Ok(true),
            Confirm::Replicas { least, .. } => {
                let wait = redis::cmd("WAIT").arg(least).arg(millis).take();
                let replicas: u64 = wait.query_async(connection).await?;
                Ok(replicas >= u64::from(least))
            }
            Confirm::Aof { replicas: least, .. } => {
                let wait = redis::cmd("WAITAOF").arg(1).arg(least).arg(millis).take();
                let (local, replicas): (u64, u64) = wait.query_async(connection).await?;
                Ok(local >= 1 && replicas >= u64::from(least))
            }
        }
    }
}
