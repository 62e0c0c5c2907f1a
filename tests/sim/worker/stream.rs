//! A run whose items somebody reads as they come; see `worker/src/emit`.

use std::time::Duration;

use asynq_core::{Credit, ItemBatch, LeaseToken};
use asynq_tests::history::Record;

use super::ledger::Phase;
use super::runs::failure;
use super::{Wake, Worker};
use crate::dice::{fingerprint, mix};
use crate::env::Env;
use crate::message::{Emission, Up};
use crate::net::ConnId;

/// How long a run waits for credit before it lends its slot.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) conn: ConnId,
    credit: Credit,
    next: u64,
    next_byte: u64,
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

impl Stream {
    fn item(&self, token: LeaseToken) -> Vec<u8> {
        let salt = token.grant.epoch.0 ^ u64::from(token.grant.attempt) ^ self.next;
        let content = mix(fingerprint(&token.task.0) ^ salt);
        // Some items are empty, most are short.
        let len = (content % 40) as usize;
        content.to_be_bytes().into_iter().cycle().take(len).collect()
    }

    fn fits(&self, bytes: usize) -> bool {
        self.next < self.credit.limit_index && self.next_byte + bytes as u64 <= self.credit.limit_bytes
    }

    /// As many items as there are, and as there is credit for.
    fn batch(&mut self, token: LeaseToken, most: u64, env: &mut Env) -> Option<ItemBatch> {
        let mut batch = ItemBatch {
            first_index: self.next,
            first_byte: self.next_byte,
            lengths: Vec::new(),
            data: Vec::new().into(),
            content_type: "".into(),
        };
        let mut data = Vec::new();
        while (batch.lengths.len() as u64) < most && self.next < self.total {
            let item = self.item(token);
            if !self.fits(item.len()) {
                break;
            }
            let (index, value) = (self.next, fingerprint(&item));
            self.next += 1;
            self.next_byte += item.len() as u64;
            env.record(Record::Sent {
                token,
                index,
                end: self.next_byte,
                value,
            });
            batch.lengths.push(item.len() as u32);
            data.extend(item);
        }
        batch.data = data.into();
        (!batch.lengths.is_empty()).then_some(batch)
    }
}

impl Worker {
    pub(super) fn open_stream(&mut self, token: LeaseToken, credit: Credit, env: &mut Env) -> Stream {
        let conn = env.connect(self.peer(), self.life);
        self.side.insert(conn, token);
        env.up(conn, Up::EmitOpened(self.holder(), token));
        let pace = self
            .dice
            .long_tailed(Duration::from_micros(100)..Duration::from_secs(2));
        self.wake_in(pace, Wake::Yields(token), env);
        Stream {
            conn,
            credit,
            next: 0,
            next_byte: 0,
            total: self.dice.int(0..30),
            fails: self.dice.chance(150),
            pace,
            waits: false,
            ended: false,
        }
    }

    /// The generator goes on as far as it may.
    pub(super) fn yields(&mut self, token: LeaseToken, env: &mut Env) {
        let most = self.dice.int(1..9);
        let jitter = self.dice.int(50..200) as u32;
        let Some(run) = self
            .runs
            .get_mut(&token)
            .filter(|run| matches!(run.phase, Phase::Going))
        else {
            return;
        };
        let Some(stream) = run.stream.as_mut().filter(|stream| !stream.ended) else {
            return;
        };
        if run.stopping {
            return; // of a stopped run not even what was made goes out
        }
        let conn = stream.conn;
        if let Some(batch) = stream.batch(token, most, env) {
            env.up(conn, Up::Emit(Emission::Items(batch)));
        }
        if stream.next == stream.total {
            stream.ended = true;
            run.slotless = true;
            let last = match stream.fails {
                false => Emission::End(stream.total),
                true => Emission::Failed(failure("the generator failed", true)),
            };
            return env.up(conn, Up::Emit(last));
        }
        let next = stream.item(token).len();
        if stream.fits(next) {
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
