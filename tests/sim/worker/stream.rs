//! A run whose items somebody reads as they come; see `worker/src/emit`.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use asynq_core::{Checkpoint, Credit, EmitResume, ItemBatch, LeaseToken, OnLoss, Place, StreamStart};
use asynq_tests::history::Record;

use super::ledger::{Phase, Run};
use super::runs::failure;
use super::{Wake, Worker};
use crate::bug::Bug;
use crate::dice::{fingerprint, mix};
use crate::env::Env;
use crate::message::{Emission, Report, Up};
use crate::net::ConnId;

/// How long a run waits for credit before it lends its slot.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) conn: ConnId,
    credit: Credit,
    /// Behind the last item made.
    made: Place,
    /// The place before the first item that is kept.
    floor: Place,
    /// Items made and not acknowledged.
    kept: VecDeque<Vec<u8>>,
    content: Content,
    /// Where it has said, or will, that it can begin again; if it does so.
    marks: Option<BTreeSet<u64>>,
    /// Those up to here were said on this connection.
    said: u64,
    /// Items sent on this connection come before this.
    sent: u64,
    /// A connection took up another, and the broker has yet to say from where.
    resumes: bool,
    /// Items there will be.
    total: u64,
    /// It fails after them.
    fails: bool,
    /// The usual pause between two batches.
    pace: Duration,
    waits: bool,
    /// Its last word is said.
    ended: bool,
}

/// What a generator yields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    salt: u64,
    /// How much further it is than its index says: a generator does not know its index,
    /// but goes on from what its token says. 0, unless somebody has mixed them up.
    shift: u64,
}

impl Content {
    /// The same in every run, or another in each.
    pub(super) fn of(token: LeaseToken, on_loss: OnLoss, env: &Env) -> Self {
        let run = mix(token.grant.epoch.0 << 32 ^ u64::from(token.grant.attempt));
        let salt = match on_loss {
            OnLoss::Replay if env.has_bug(Bug::OtherItems) => run,
            OnLoss::Replay | OnLoss::Checkpoint => 0,
            OnLoss::Fail => run,
        };
        Self {
            salt: fingerprint(&token.task.0) ^ salt,
            shift: 0,
        }
    }

    fn item(self, index: u64) -> Vec<u8> {
        let content = mix(self.salt ^ index.wrapping_add(self.shift));
        // Some items are empty, most are short.
        let len = (content % 40) as usize;
        content.to_be_bytes().into_iter().cycle().take(len).collect()
    }
}

impl Content {
    /// As it goes on from a checkpoint, which is not behind its first item to send.
    fn from(self, checkpoint: &Checkpoint, start: Place) -> Self {
        assert!(checkpoint.index <= start.index, "it would leave items out");
        let token = checkpoint.token[..].try_into();
        let next = token.map_or(0, u64::from_be_bytes);
        Self {
            shift: next.wrapping_sub(checkpoint.index),
            ..self
        }
    }
}

impl Stream {
    /// Checkpoints behind what has been sent on this connection, that were not said on it.
    fn checkpoints(&mut self, env: &Env) -> Vec<Checkpoint> {
        let Some(marks) = self.marks.as_ref().filter(|_| self.said < self.sent) else {
            return Vec::new();
        };
        let misplaced = u64::from(env.has_bug(Bug::CheckpointMisplaced));
        let checkpoint = |&index: &u64| Checkpoint {
            index,
            token: (index - misplaced).to_be_bytes().to_vec().into(),
        };
        let new = marks.range(self.said + 1..=self.sent).map(checkpoint).collect();
        self.said = self.sent;
        new
    }

    fn fits(&self, place: Place, bytes: usize) -> bool {
        place.index < self.credit.limit_index && place.byte + bytes as u64 <= self.credit.limit_bytes
    }

    /// As many items as there are, and as there is credit for: first what is kept
    /// and was not sent on this connection.
    fn batch(&mut self, token: LeaseToken, most: u64, env: &mut Env) -> Option<ItemBatch> {
        let mut place = self.floor;
        let behind = usize::try_from(self.sent.saturating_sub(self.floor.index)).unwrap_or(usize::MAX);
        self.kept.iter().take(behind).for_each(|item| place.pass(item));
        let mut batch = ItemBatch {
            first_index: place.index,
            first_byte: place.byte,
            lengths: Vec::new(),
            data: Vec::new().into(),
            content_type: "".into(),
        };
        let mut data = Vec::new();
        while (batch.lengths.len() as u64) < most && place.index < self.total {
            let at = usize::try_from(place.index - self.floor.index).unwrap_or(usize::MAX);
            let kept = self.kept.get(at).cloned();
            let is_new = kept.is_none();
            let next = kept.unwrap_or_else(|| self.content.item(place.index));
            if !self.fits(place, next.len()) {
                break;
            }
            env.record(Record::Sent {
                token,
                index: place.index,
                end: place.byte + next.len() as u64,
                value: fingerprint(&next),
            });
            place.pass(&next);
            batch.lengths.push(next.len() as u32);
            data.extend(&next);
            if is_new {
                self.made = place;
                self.kept.push_back(next);
            }
            if env.has_bug(Bug::DroppedWhenSent) {
                self.drop_taken(place.index);
            }
        }
        self.sent = place.index;
        batch.data = data.into();
        (!batch.lengths.is_empty()).then_some(batch)
    }

    fn may_send(&self) -> bool {
        // What is kept was within the credit before.
        self.sent < self.made.index || self.fits(self.made, self.content.item(self.made.index).len())
    }

    /// What has been taken need not be kept.
    fn drop_taken(&mut self, acked: u64) {
        while self.floor.index < acked
            && let Some(item) = self.kept.pop_front()
        {
            self.floor.pass(&item);
        }
    }
}

impl Worker {
    pub(super) fn open_stream(
        &mut self,
        token: LeaseToken,
        (start, content): (StreamStart, Content),
        env: &mut Env,
    ) -> Stream {
        let conn = env.connect(self.peer(), self.life);
        self.side.insert(conn, token);
        // A broker that was not there when it was assigned does not know where it begins.
        let stands = EmitResume {
            floor: start.start,
            head: start.start.index,
            credit: start.credit,
        };
        env.up(conn, Up::EmitOpened(self.holder(), token, Some(stands)));
        let pace = self
            .dice
            .long_tailed(Duration::from_micros(100)..Duration::from_secs(2));
        self.wake_in(pace, Wake::Yields(token), env);
        Stream {
            conn,
            credit: start.credit,
            made: start.start,
            floor: start.start,
            kept: VecDeque::new(),
            content: start
                .checkpoint
                .as_ref()
                .map_or(content, |it| content.from(it, start.start)),
            marks: start.checkpoint.is_some().then(BTreeSet::new),
            said: start.start.index,
            sent: start.start.index,
            resumes: false,
            total: mix(fingerprint(&token.task.0)) % 30,
            fails: self.dice.chance(150),
            pace,
            waits: false,
            ended: false,
        }
    }

    /// Its Emit connection broke: the run goes on, and opens another.
    pub(super) fn emit_lost(&mut self, token: LeaseToken, conn: ConnId, env: &mut Env) {
        self.side.remove(&conn);
        let pause = self.dice.time(Duration::from_millis(1)..Duration::from_millis(500));
        self.wake_in(pause, Wake::EmitAgain(token), env);
    }

    pub(super) fn emit_again(&mut self, token: LeaseToken, env: &mut Env) {
        let going = |run: &&mut Run| matches!(run.phase, Phase::Going);
        let holder = self.holder();
        let (peer, life) = (self.peer(), self.life);
        let Some(run) = self.runs.get_mut(&token).filter(going) else {
            return;
        };
        let Some(stream) = run
            .stream
            .as_mut()
            .filter(|stream| !self.side.contains_key(&stream.conn))
        else {
            return;
        };
        let conn = env.connect(peer, life);
        stream.conn = conn;
        stream.resumes = true;
        let resume = EmitResume {
            floor: stream.floor,
            head: stream.made.index,
            credit: stream.credit,
        };
        self.side.insert(conn, token);
        env.up(conn, Up::EmitOpened(holder, token, Some(resume)));
    }

    /// The broker says from where.
    pub(super) fn send_from(&mut self, token: LeaseToken, from: u64, env: &mut Env) {
        let run = self.runs.get_mut(&token);
        let Some(stream) = run.and_then(|run| run.stream.as_mut()) else {
            return;
        };
        if !stream.resumes {
            return; // the first one: there is only one place to begin at
        }
        if !(stream.floor.index..=stream.made.index).contains(&from) {
            // The broker asks for what is not here.
            return self.over(token, Report::Ended, env);
        }
        (stream.sent, stream.said) = (from, 0);
        (stream.resumes, stream.waits, stream.ended) = (false, false, false);
        let soon = self.dice.time(Duration::from_micros(1)..Duration::from_millis(1));
        self.wake_in(soon, Wake::Yields(token), env);
    }

    /// The generator goes on as far as it may.
    pub(super) fn yields(&mut self, token: LeaseToken, env: &mut Env) {
        let most = self.dice.int(1..9);
        let jitter = self.dice.int(50..200) as u32;
        let is_marked = self.dice.chance(500);
        let Some(run) = self
            .runs
            .get_mut(&token)
            .filter(|run| matches!(run.phase, Phase::Going))
        else {
            return;
        };
        let goes_on = |stream: &&mut Stream| !stream.ended && !stream.resumes;
        let Some(stream) = run.stream.as_mut().filter(goes_on) else {
            return;
        };
        if run.stopping {
            return; // of a stopped run not even what was made goes out
        }
        let conn = stream.conn;
        if let Some(batch) = stream.batch(token, most, env) {
            env.up(conn, Up::Emit(Emission::Items(batch)));
            if let Some(marks) = stream.marks.as_mut().filter(|_| is_marked) {
                marks.insert(stream.sent);
            }
        }
        for checkpoint in stream.checkpoints(env) {
            env.up(conn, Up::Emit(Emission::Checkpoint(checkpoint)));
        }
        if stream.sent >= stream.total {
            stream.ended = true;
            run.slotless = true;
            let last = match stream.fails {
                false => Emission::End(stream.total, stream.made.digest),
                true => Emission::Failed(failure("the generator failed", true)),
            };
            return env.up(conn, Up::Emit(last));
        }
        if stream.may_send() {
            let pause = stream.pace * jitter / 100;
            self.wake_in(pause, Wake::Yields(token), env);
        } else {
            stream.waits = true;
            let Credit {
                limit_index,
                limit_bytes,
                ..
            } = stream.credit;
            self.wake_in(BLOCKED_AFTER, Wake::Blocked(token, limit_index, limit_bytes), env);
        }
    }

    pub(super) fn more_credit(&mut self, token: LeaseToken, credit: Credit, env: &mut Env) {
        let run = self.runs.get_mut(&token);
        let Some(stream) = run.and_then(|run| run.stream.as_mut()) else {
            return;
        };
        stream.credit.acked = stream.credit.acked.max(credit.acked);
        stream.drop_taken(stream.credit.acked);
        let before = (stream.credit.limit_index, stream.credit.limit_bytes);
        stream.credit.limit_index = before.0.max(credit.limit_index);
        stream.credit.limit_bytes = before.1.max(credit.limit_bytes);
        let more = before != (stream.credit.limit_index, stream.credit.limit_bytes);
        if more && std::mem::replace(&mut stream.waits, false) {
            let soon = self.dice.time(Duration::from_micros(1)..Duration::from_millis(1));
            self.wake_in(soon, Wake::Yields(token), env);
        }
    }

    /// It has waited for a while with that credit: others may have its slot.
    pub(super) fn blocked(&mut self, token: LeaseToken, used_up: (u64, u64), env: &mut Env) {
        let Some(run) = self
            .runs
            .get_mut(&token)
            .filter(|run| matches!(run.phase, Phase::Going))
        else {
            return;
        };
        let waits = |stream: &&Stream| {
            let credit = stream.credit;
            stream.waits && (credit.limit_index, credit.limit_bytes) == used_up
        };
        if let Some(stream) = run.stream.as_ref().filter(waits) {
            env.up(stream.conn, Up::Emit(Emission::Blocked(stream.credit)));
            run.slotless = true;
        }
    }
}
