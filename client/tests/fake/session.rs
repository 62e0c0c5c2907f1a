//! The fake broker's side of a session.

use std::collections::HashMap;

use asynq_proto::v1::{self, answer::Of, operation::Op};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, codegen::Bytes};

use super::{Fake, lock};

type Replies = mpsc::Sender<Result<v1::SessionReply, Status>>;

pub(crate) fn open(
    fake: Fake,
    requests: Streaming<v1::SessionRequest>,
) -> ReceiverStream<Result<v1::SessionReply, Status>> {
    let (replies, stream) = mpsc::channel(16);
    tokio::spawn(async move {
        let session = Session {
            fake,
            waiting: HashMap::new(),
            unanswered: 0,
            cut: false,
        };
        session.run(requests, replies).await;
    });
    ReceiverStream::new(stream)
}

struct Session {
    fake: Fake,
    /// Calls that are answered when their task ends.
    waiting: HashMap<u64, Bytes>,
    unanswered: usize,
    cut: bool,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<v1::SessionRequest>, replies: Replies) {
        let mut cuts = self.fake.inner.cuts.subscribe();
        let mut greeted = false;
        loop {
            let request = tokio::select! {
                request = requests.message() => request,
                _ = cuts.changed() => {
                    let _gone = replies.send(Err(Status::unavailable("the broker shuts down"))).await;
                    return;
                }
            };
            let Ok(Some(v1::SessionRequest { hello, operations })) = request else {
                return;
            };
            assert_eq!(hello.is_some(), !greeted, "hello comes first and only then");
            if !operations.is_empty() {
                lock(&self.fake.inner.messages).push(operations.clone());
            }
            let answers = self.answers(operations);
            if self.cut {
                let _gone = replies.send(Err(Status::unavailable("cut"))).await;
                return;
            }
            let welcome = (!greeted).then(|| v1::SessionWelcome {
                now_us: 1_700_000_000_000_000,
                epoch: 1,
                max_outstanding: self.fake.inner.max_outstanding,
                version: "0.0.1".to_owned(),
                ..v1::SessionWelcome::default()
            });
            greeted = true;
            if welcome.is_some() || !answers.is_empty() {
                let _gone = replies.send(Ok(v1::SessionReply { welcome, answers })).await;
            }
        }
    }

    fn answers(&mut self, operations: Vec<v1::Operation>) -> Vec<v1::Answer> {
        let mut answers = Vec::new();
        for v1::Operation { call, op } in operations {
            if !matches!(op, Some(Op::Forget(_) | Op::Flow(_))) {
                self.unanswered += 1;
            }
            let mut most = lock(&self.fake.inner.most_unanswered);
            *most = self.unanswered.max(*most);
            drop(most);
            let of = match op.unwrap() {
                Op::Enqueue(request) => match self.enqueue(call, request, &mut answers) {
                    Some(of) => of,
                    None => continue,
                },
                Op::Wait(request) => match lock(&self.fake.inner.tasks).is_new(&request.id) {
                    true => not_found(),
                    false => {
                        self.waiting.insert(call, request.id);
                        continue;
                    }
                },
                Op::Cancel(request) => {
                    or_not_found(lock(&self.fake.inner.tasks).cancel(&request.id).map(Of::Cancelled))
                }
                Op::Flow(request) => {
                    lock(&self.fake.inner.streams).flow(&request);
                    continue;
                }
                Op::Stop(request) => or_not_found(lock(&self.fake.inner.streams).stop(&request).map(Of::Cancelled)),
                Op::Show(request) => or_not_found(lock(&self.fake.inner.tasks).show(&request.id).map(Of::Shown)),
                Op::History(request) => {
                    or_not_found(lock(&self.fake.inner.tasks).history(&request.id).map(Of::History))
                }
                Op::Explain(request) => {
                    or_not_found(lock(&self.fake.inner.tasks).explain(&request.id).map(Of::Explained))
                }
                Op::Forget(forget) => {
                    if self.waiting.remove(&forget.call).is_some() {
                        self.unanswered -= 1;
                    }
                    continue;
                }
            };
            self.unanswered -= 1;
            answers.push(v1::Answer { call, of: Some(of) });
        }
        self.finish(&mut answers);
        answers
    }

    /// `None` if the call is answered later.
    fn enqueue(&mut self, call: u64, request: v1::EnqueueRequest, answers: &mut Vec<v1::Answer>) -> Option<Of> {
        let mut tasks = lock(&self.fake.inner.tasks);
        let (id, name, wait) = (request.id.clone(), request.name.clone(), request.wait);
        let is_new = tasks.is_new(&id);
        if let Some(code) = name.strip_prefix("refused.") {
            return Some(refusal(code.parse().unwrap(), "TEST", "refused as asked"));
        }
        let enqueued = tasks.enqueue(request);
        if is_new && name == "cut" {
            self.cut = true;
        }
        if is_new && name == "not_now" {
            return Some(refusal(Code::Unavailable as i32, "SHUTTING_DOWN", "not now"));
        }
        if !wait {
            return Some(Of::Enqueued(enqueued));
        }
        answers.push(v1::Answer {
            call,
            of: Some(Of::Enqueued(enqueued)),
        });
        self.waiting.insert(call, id);
        None
    }

    /// Answers the calls whose tasks have ended.
    fn finish(&mut self, answers: &mut Vec<v1::Answer>) {
        let tasks = lock(&self.fake.inner.tasks);
        let unanswered = &mut self.unanswered;
        self.waiting.retain(|&call, id| {
            let Some(finished) = tasks.finished_inline(id) else {
                return true;
            };
            answers.push(v1::Answer {
                call,
                of: Some(Of::Finished(finished)),
            });
            *unanswered -= 1;
            false
        });
    }
}

fn or_not_found(of: Option<Of>) -> Of {
    of.unwrap_or_else(not_found)
}

fn not_found() -> Of {
    refusal(Code::NotFound as i32, "TASK_NOT_FOUND", "there is no such task")
}

fn refusal(code: i32, reason: &str, message: &str) -> Of {
    Of::Error(v1::OperationError {
        code,
        reason: reason.to_owned(),
        message: message.to_owned(),
        retry_after_ms: 0,
    })
}
