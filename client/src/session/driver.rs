//! The background task that owns the stream: it gathers, sends, hands out
//! answers, and opens the next stream when one is lost.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use asynq_proto::{
    Backoff, Connector,
    limits::MAX_BATCH_OPS,
    v1::{SessionRequest, SessionWelcome},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Shared,
    link::{Link, OpenError},
    pending::{Pending, Request},
};

pub(super) struct Driver {
    connector: Connector,
    requests: mpsc::Receiver<Request>,
    /// Taken from `requests` and not yet in `pending`; empty between steps.
    taken: Vec<Request>,
    pending: Pending,
    shared: Arc<Shared>,
}

impl Driver {
    pub(super) fn new(connector: Connector, requests: mpsc::Receiver<Request>, shared: Arc<Shared>) -> Self {
        let pending = Pending::new(shared.broker.clone());
        Self {
            connector,
            requests,
            taken: Vec::new(),
            pending,
            shared,
        }
    }

    /// Runs until the last caller has gone.
    pub(super) async fn run(mut self, mut link: Link) {
        loop {
            self.begin(&link.welcome);
            if self.serve(&mut link).await.is_break() {
                return;
            }
            drop(link);
            self.shared.connected.store(false, Ordering::Relaxed);
            self.pending.disconnected(Instant::now());
            match self.reconnect().await {
                ControlFlow::Continue(opened) => link = opened,
                ControlFlow::Break(()) => return,
            }
            self.shared.connected.store(true, Ordering::Relaxed);
        }
    }

    fn begin(&mut self, welcome: &SessionWelcome) {
        self.shared.ids().sync(welcome.now_us);
        self.shared.met(welcome);
        self.pending.connected(welcome.max_outstanding);
        self.shared.flows.resend();
    }

    /// Uses a stream until it is lost (continue) or nobody needs it any more (break).
    async fn serve(&mut self, link: &mut Link) -> ControlFlow<()> {
        loop {
            let to_send = self.pending.has_work() || self.shared.flows.any();
            // In this order, so that a message takes with it all that was ready before it.
            tokio::select! {
                biased;
                reply = link.replies.message() => match reply {
                    Ok(Some(reply)) => self.pending.answered(reply.answers, Instant::now()),
                    Ok(None) => {
                        tracing::info!(broker = %self.shared.broker, "the broker ended the session; reconnecting");
                        return ControlFlow::Continue(());
                    }
                    Err(status) => {
                        let cause = status.message();
                        tracing::info!(broker = %self.shared.broker, cause, "lost the broker; reconnecting");
                        return ControlFlow::Continue(());
                    }
                },
                upkeep = self.upkeep() => upkeep?,
                room = link.outgoing.reserve(), if to_send => match room {
                    Ok(room) => {
                        // Credit first, but never so much of it that nothing else fits.
                        let mut operations = self.shared.flows.take(MAX_BATCH_OPS / 2);
                        self.pending.fill(&mut operations);
                        if !operations.is_empty() {
                            room.send(SessionRequest { hello: None, operations });
                        }
                    }
                    // The stream is gone; `replies` says why.
                    Err(_) => return ControlFlow::Continue(()),
                },
            }
        }
    }

    /// Opens the next stream, however long it takes; meanwhile operations run out of patience.
    async fn reconnect(&mut self) -> ControlFlow<(), Link> {
        let mut backoff = Backoff::reconnect();
        loop {
            let (connector, pause) = (self.connector.clone(), backoff.pause());
            let shared = Arc::clone(&self.shared);
            let mut opening = Box::pin(async move {
                sleep(pause).await;
                Link::open(&connector, &shared.me).await
            });
            let cause = loop {
                tokio::select! {
                    biased;
                    opened = &mut opening => match opened {
                        Ok(link) => return ControlFlow::Continue(link),
                        Err(OpenError::NoBroker(message)) => break message,
                        Err(OpenError::Refused(error)) => break error.to_string(),
                    },
                    upkeep = self.upkeep() => upkeep?,
                }
            };
            tracing::debug!(cause, "still no broker");
            self.pending.not_connected(cause);
        }
    }

    /// Takes up one thing that callers or the clock ask for. Breaks when all callers have gone.
    async fn upkeep(&mut self) -> ControlFlow<()> {
        let room = self.pending.free().min(MAX_BATCH_OPS);
        let timer = self.pending.next_timer();
        let time = async move {
            match timer {
                Some(time) => sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            calls = self.shared.forgotten.take() => {
                for call in calls {
                    self.pending.forget(call);
                }
            }
            count = self.requests.recv_many(&mut self.taken, room), if room > 0 => {
                if count == 0 {
                    return ControlFlow::Break(());
                }
                for request in self.taken.drain(..) {
                    self.pending.insert(request);
                }
            }
            () = time => self.pending.tick(Instant::now()),
            // What there is, the stream takes when it has room.
            () = self.shared.flows.some() => {}
        }
        ControlFlow::Continue(())
    }
}
