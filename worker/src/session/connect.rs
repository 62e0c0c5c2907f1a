//! Hello and welcome: from no connection to a session on one.

use std::time::Duration;

use asynq_proto::ConnectError;
use asynq_proto::v1::{WorkHello, WorkReply, WorkRequest, WorkWelcome};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::transfer::Transfer;
use super::{Ended, Session};
use crate::data;
use crate::error::RunError;
use crate::lease::{Lease, since_boot};
use crate::limits::WELCOME;

/// One connection that carries the session.
pub(super) struct Link {
    /// `None` once we have said goodbye.
    pub(super) requests: Option<mpsc::Sender<WorkRequest>>,
    pub(super) replies: Streaming<WorkReply>,
    /// What came along with the welcome.
    pub(super) first: WorkReply,
    pub(super) transfers: FuturesUnordered<BoxFuture<'static, Transfer>>,
    pub(super) beats: Interval,
    pub(super) pace: Pace,
    pub(super) broker: BrokerClock,
}

/// What is due to be said apart from outcomes.
#[derive(Default)]
pub(super) struct Pace {
    pub(super) beat_due: bool,
    /// The heartbeat that went with `draining`, once that was said.
    pub(super) drain_told: Option<u64>,
    /// How many slots have leaked, as the broker knows.
    pub(super) leaked_told: u32,
}

/// The broker's clock as the welcome told it.
#[derive(Clone, Copy)]
pub(super) struct BrokerClock {
    now: Duration,
    read_at: Instant,
}

impl BrokerClock {
    /// When the broker's clock reads `unix_ms`, or read the welcome's time if
    /// that is later; `None` if it lies too far ahead to matter.
    pub(super) fn instant(self, unix_ms: u64) -> Option<Instant> {
        self.read_at
            .checked_add(Duration::from_millis(unix_ms).saturating_sub(self.now))
    }
}

/// Why there is no link.
pub(super) enum NoLink {
    Ended(Ended),
    /// For good.
    Refused(RunError),
    /// Perhaps next time.
    Failed(String),
}

impl From<Ended> for NoLink {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl Session {
    /// One attempt to connect and to open or resume the session.
    pub(super) async fn connect(&mut self) -> Result<Link, NoLink> {
        let connector = self.config.connector.clone();
        let channel = self.meanwhile(async move { connector.control().await }).await?;
        let channel = channel.map_err(|error| self.no_connection(&error))?;

        let fences = self.fences;
        let hello_sent = since_boot();
        // Room for one: while it waits to be written, the next message gathers.
        let (requests, outgoing) = mpsc::channel(1);
        let hello = self.hello();
        let leaked_told = hello.leaked;
        let hello = WorkRequest {
            hello: Some(hello),
            ..WorkRequest::default()
        };
        let greeting = async move {
            let closed = || Status::unavailable("the broker closed the session before its welcome");
            requests.send(hello).await.map_err(|_| closed())?;
            let mut replies = data::client(channel)
                .work(ReceiverStream::new(outgoing))
                .await?
                .into_inner();
            let first = replies.message().await?.ok_or_else(closed)?;
            Ok((requests, replies, first))
        };
        let greeted: Result<Result<_, Status>, _> = self.meanwhile(timeout(WELCOME, greeting)).await?;
        let greeted = greeted.map_err(|_| NoLink::Failed(format!("no welcome within {WELCOME:?}")))?;
        let (requests, replies, mut first) = greeted.map_err(|status| match self.config.connector.trouble() {
            Some(trouble) => self.no_connection(&trouble),
            None => self.no_welcome(&status),
        })?;
        let welcome = first
            .welcome
            .take()
            .ok_or_else(|| NoLink::Failed("the first reply is no welcome".into()))?;
        if self.fences != fences {
            return Err(NoLink::Failed("the lease ran out while connecting".into()));
        }

        self.welcomed(&welcome, hello_sent);
        let period = Duration::from_millis(welcome.heartbeat_ms.max(1));
        let mut beats = interval_at(Instant::now() + period, period);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Link {
            requests: Some(requests),
            replies,
            first,
            transfers: FuturesUnordered::new(),
            beats,
            pace: Pace {
                leaked_told,
                ..Pace::default()
            },
            broker: BrokerClock {
                now: Duration::from_micros(welcome.now_us),
                read_at: Instant::now(),
            },
        })
    }

    fn hello(&self) -> WorkHello {
        WorkHello {
            worker: self.config.name.clone(),
            slots: self.config.slots,
            tasks: self.config.tasks.clone(),
            worker_version: env!("CARGO_PKG_VERSION").into(),
            resume: self.id.clone().unwrap_or_default(),
            held: self.ledger.held(),
            leaked: self.ledger.leaked(),
        }
    }

    fn welcomed(&mut self, welcome: &WorkWelcome, hello_sent: Duration) {
        let broker = self.config.connector.endpoint();
        tracing::info!(%broker, worker = self.config.name, resumed = welcome.resumed, "connected");
        self.id = Some(welcome.session.clone());
        self.named.send_replace(welcome.session.clone());
        self.lease = Some(Lease::new(welcome, hello_sent));
        self.shared.set_clock(Duration::from_micros(welcome.now_us));
        self.ledger.reconnected();
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(()); // the worker may be on its way out
        }
    }

    /// What is wrong with certificates has to be set right by somebody, unless
    /// it was right before: then that is under way.
    fn no_connection(&self, error: &ConnectError) -> NoLink {
        match error {
            ConnectError::Tls { problem, .. } if self.ready.is_some() => {
                let message = error.to_string();
                NoLink::Refused(match problem.is_by_broker() {
                    true => RunError::Refused { message },
                    false => RunError::Tls { message },
                })
            }
            _ => NoLink::Failed(error.to_string()),
        }
    }

    /// A worker that was welcome once is so again: then only a broker in
    /// trouble says otherwise.
    fn no_welcome(&self, status: &Status) -> NoLink {
        match status.code() {
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
                if self.ready.is_some() =>
            {
                NoLink::Refused(RunError::Refused {
                    message: status.message().into(),
                })
            }
            _ => NoLink::Failed(format!("{:?}: {}", status.code(), status.message())),
        }
    }
}
