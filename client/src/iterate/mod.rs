//! Iterates: a task that yields items, and the stream of them.

mod batch;
mod gap;
mod head;
mod items;
mod options;
mod pump;
mod reader;
mod resume;
mod window;

use std::{future::IntoFuture, sync::Arc, time::Duration};

use asynq_proto::{Place, v1};

use self::{
    head::Head,
    items::Opened,
    options::{Options, reading_options},
    pump::Pump,
    reader::Reader,
};
pub use self::{items::Items, resume::Resume};
use crate::{
    BoxFuture, Error, TaskId,
    call::Decode,
    session::{ConsumerId, Session},
    spec::{Spec, task_id, task_options},
};

/// A task to be run and its items to be read. Made by [`crate::Client::iterate`].
///
/// Nothing happens before it is awaited. It resolves once the task is durable,
/// before there is an item. Dropping the awaited future stops the task.
#[derive(Debug)]
#[must_use = "an iterate does nothing unless it is awaited"]
pub struct Iterate<T> {
    session: Session,
    spec: Spec,
    options: Options,
    decode: Decode<T>,
}

impl<T: Send + 'static> Iterate<T> {
    pub(crate) fn new(session: Session, spec: Spec, decode: Decode<T>) -> Self {
        Self {
            session,
            spec,
            options: Options::default(),
            decode,
        }
    }

    task_options!();
    task_id!();
    reading_options!();

    /// Waits no longer than this for the broker to take the task. An error after
    /// that is [indefinite](Error::is_indefinite), but without its reader the
    /// task will not go on.
    pub fn wait_at_most(mut self, patience: Duration) -> Self {
        self.spec.patience = Some(patience);
        self
    }
}

impl<T: Send + 'static> IntoFuture for Iterate<T> {
    type Output = Result<Items<T>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                session,
                spec,
                options,
                decode,
            } = self;
            let (id, patience) = (spec.id, spec.patience);
            let begin = Begin {
                id,
                task: spec.into_request(session.broker_now(), false)?,
                attach: false,
                take_over: false,
                from: 0,
            };
            open(session, begin, options, patience, decode).await
        })
    }
}

/// A stream that is to be opened for the first time by its reader.
struct Begin {
    id: TaskId,
    task: v1::EnqueueRequest,
    /// The task is there.
    attach: bool,
    take_over: bool,
    /// The first item wanted.
    from: u64,
}

async fn open<T>(
    session: Session,
    begin: Begin,
    options: Options,
    patience: Option<Duration>,
    decode: Decode<T>,
) -> Result<Items<T>, Error> {
    options.check()?;
    let mut window = options.window(begin.from)?;
    let Begin {
        id,
        mut task,
        attach,
        take_over,
        from,
    } = begin;
    let (consumer, credit, mut open_seq) = (ConsumerId::random(), window.credit(), 0);
    let opening = session.data().open(id, || {
        open_seq += 1;
        let request = v1::IterateRequest {
            attach,
            take_over,
            from_index: from,
            ..options.request(task.clone(), consumer, open_seq, credit)
        };
        // Once more it is not taken for fresh, however old.
        task.first_send = false;
        request
    });
    let open = session.within(id, patience, opening).await?;
    let at = match open.at {
        Some(at) => Place::from(at),
        // A stream that is begun can begin nowhere else.
        None if from == 0 => Place::START,
        None => return Err(Error::unexpected("a stream that does not say where it begins")),
    };
    if at.index != from {
        return Err(Error::unexpected("a stream that begins elsewhere than was asked for"));
    }
    window.begin_at(at.byte);
    let (nth, told) = ((open_seq, attach || open.enqueued.existed), (window.credit(), at));
    let reader = Arc::new(Reader::new(session, id, consumer, options, nth, told));
    let (pump, arrivals) = Pump::new(Arc::clone(&reader), Head::new(id, at), open.frames);
    let pump = reader.session.spawn(pump.run());
    let opened = Opened {
        worker_known: open.enqueued.worker_known,
        arrivals,
        pump,
        manual_ack: options.manual_ack,
        reader,
        window,
        at,
    };
    Ok(Items::new(opened, decode))
}
