//! How much room a reader gives a stream: the rule by which its credit grows. No I/O.

use asynq_proto::{limits::MAX_PAYLOAD_BYTES, v1::Credit};

use crate::limits::{AUTO_WINDOW, AUTO_WINDOW_GROWN, MAX_WINDOW};

/// Bytes of items that may be on their way or unread. Two of the largest items
/// fit, so there is always room for one while the other is being read.
/// Cutting large items in pieces will let it be smaller.
pub(super) const WINDOW_BYTES: u64 = 2 * MAX_PAYLOAD_BYTES as u64;

/// What the caller has taken, and what it has told the broker of it.
#[derive(Debug)]
pub(super) struct Window {
    /// Items there is room for past the last one taken.
    items: u64,
    /// What `items` may grow to.
    most: u64,
    taken: u64,
    taken_bytes: u64,
    told: Credit,
    /// All the worker had room for, as far as the caller can know: whoever has
    /// taken that much and finds nothing more has outrun the credit.
    edge: u64,
}

impl Window {
    /// One that grows while the caller waits empty at its end, for a stream that is
    /// read from an item on.
    pub(super) fn auto(from: u64) -> Self {
        Self::new(AUTO_WINDOW, AUTO_WINDOW_GROWN, from)
    }

    /// One that stays as it is; `None` unless it is of 1 to [`MAX_WINDOW`] items.
    pub(super) fn fixed(items: u32, from: u64) -> Option<Self> {
        (1..=MAX_WINDOW).contains(&items).then(|| Self::new(items, items, from))
    }

    fn new(items: u32, most: u32, from: u64) -> Self {
        let mut window = Self {
            items: items.into(),
            most: most.into(),
            taken: from,
            taken_bytes: 0,
            told: Credit::default(),
            edge: 0,
        };
        window.edge = window.tell().limit_index;
        window
    }

    /// Where the first item lies in the stream: until it is known, bytes count from there.
    pub(super) const fn begin_at(&mut self, byte: u64) {
        self.taken_bytes += byte;
        self.told.limit_bytes += byte;
    }

    /// What the broker has been told.
    pub(super) const fn credit(&self) -> Credit {
        self.told
    }

    /// The caller is done with the next `items`, of so many bytes. Tells the broker
    /// once half the window has been taken.
    pub(super) fn take(&mut self, items: u64, bytes: u64) -> Option<Credit> {
        if self.taken + items > self.edge {
            // More came than there was room for then: the worker has had a later word.
            self.edge = self.told.limit_index;
        }
        self.taken += items;
        self.taken_bytes += bytes;
        let unread_bytes = self.told.limit_bytes - self.taken_bytes;
        let due = 2 * (self.taken - self.told.acked) >= self.items || 2 * unread_bytes <= WINDOW_BYTES;
        due.then(|| self.tell())
    }

    /// The caller has taken all that has come and waits. If that is all the
    /// worker had room for, credit is what holds it up: give more.
    pub(super) fn starve(&mut self) -> Option<Credit> {
        if self.taken < self.edge || self.items == self.most {
            return None;
        }
        self.items = self.most.min(2 * self.items);
        let credit = self.tell();
        self.edge = credit.limit_index;
        Some(credit)
    }

    fn tell(&mut self) -> Credit {
        self.told = Credit {
            acked: self.taken,
            limit_index: self.taken.saturating_add(self.items),
            limit_bytes: self.taken_bytes + WINDOW_BYTES,
        };
        self.told
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    /// A worker that sends what it may, and a caller that takes it: items are
    /// sent, flows arrive and items are taken as the dice say.
    struct Wire {
        window: Window,
        at_worker: Credit,
        on_the_way: Vec<Credit>,
        sizes: Vec<usize>,
        head: u64,
        head_bytes: u64,
        together: bool,
    }

    impl Wire {
        fn new(window: Window) -> Self {
            Self {
                at_worker: window.credit(),
                window,
                on_the_way: Vec::new(),
                sizes: Vec::new(),
                head: 0,
                head_bytes: 0,
                together: false,
            }
        }

        fn send(&mut self, bytes: usize) -> bool {
            let end = self.head_bytes + bytes as u64;
            let fits = self.head < self.at_worker.limit_index && end <= self.at_worker.limit_bytes;
            if fits {
                (self.head, self.head_bytes) = (self.head + 1, end);
                self.sizes.push(bytes);
            }
            fits
        }

        fn take(&mut self) {
            let taken = usize::try_from(self.window.taken).unwrap();
            let items = self.window.items;
            let told = match self.sizes.get(taken) {
                Some(_) => {
                    // All that is there, or the next one.
                    let items = if self.together { self.sizes.len() - taken } else { 1 };
                    let bytes: usize = self.sizes[taken..taken + items].iter().sum();
                    self.window.take(items as u64, bytes as u64)
                }
                None => self.window.starve(),
            };
            assert!(
                taken == self.sizes.len() || self.window.items == items,
                "grows only while waiting empty"
            );
            self.on_the_way.extend(told);
            self.hold();
        }

        fn hear(&mut self) {
            if !self.on_the_way.is_empty() {
                let credit = self.on_the_way.remove(0);
                assert!(
                    credit.acked >= self.at_worker.acked
                        && credit.limit_index >= self.at_worker.limit_index
                        && credit.limit_bytes >= self.at_worker.limit_bytes,
                    "credit is never taken back: {credit:?} after {:?}",
                    self.at_worker
                );
                self.at_worker = credit;
            }
        }

        fn hold(&self) {
            let Window { taken, most, told, .. } = self.window;
            assert!(told.acked <= taken && taken <= self.head && self.head <= told.limit_index);
            assert!(told.limit_index <= taken + most && told.limit_bytes <= self.window.taken_bytes + WINDOW_BYTES);
        }
    }

    fn run(window: Window, sizes: RangeInclusive<usize>, dice: &mut fastrand::Rng) -> Wire {
        let mut wire = Wire::new(window);
        for _ in 0..20_000 {
            match dice.u8(0..3) {
                0 => _ = wire.send(dice.usize(sizes.clone())),
                1 => {
                    wire.together = dice.u8(0..8) == 0;
                    wire.take();
                }
                _ => wire.hear(),
            }
            wire.hold();
        }
        wire
    }

    #[test]
    fn whatever_happens_credit_only_rises_and_is_never_overrun() {
        for seed in 0..40 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let window = match seed % 4 {
                0 => Window::auto(0),
                1 => Window::fixed(1, 0).unwrap(),
                _ => Window::fixed(dice.u32(1..=MAX_WINDOW), 0).unwrap(),
            };
            let most = if seed % 5 == 0 { MAX_PAYLOAD_BYTES } else { 200 };
            let mut wire = run(window, 0..=most, &mut dice);
            // However it went: once all is read and heard, the largest item can come.
            for _ in 0..200_000 {
                wire.take();
                wire.hear();
            }
            assert!(
                wire.send(MAX_PAYLOAD_BYTES),
                "seed {seed}: stuck at {:?}",
                wire.at_worker
            );
        }
    }

    #[test]
    fn a_fast_reader_gets_a_larger_window_up_to_the_limit() {
        let mut wire = Wire::new(Window::auto(0));
        for _ in 0..20 {
            while wire.send(100) {}
            while wire.window.taken < wire.head {
                wire.take();
            }
            wire.take();
            while !wire.on_the_way.is_empty() {
                wire.hear();
            }
        }
        assert_eq!(wire.window.items, u64::from(AUTO_WINDOW_GROWN));
    }

    #[test]
    fn waiting_for_a_slow_worker_is_no_reason_to_grow() {
        let mut window = Window::auto(0);
        for _ in 0..100 {
            assert_eq!((window.starve(), window.take(1, 10)), (None, None));
        }
        assert_eq!(window.items, u64::from(AUTO_WINDOW));
    }

    #[test]
    fn half_a_window_is_worth_a_word() {
        let mut window = Window::fixed(10, 0).unwrap();
        assert_eq!(window.credit().limit_index, 10);
        let told: Vec<_> = (0..10)
            .map(|_| window.take(1, 1).map(|credit| credit.limit_index))
            .collect();
        assert_eq!(
            told,
            [None, None, None, None, Some(15), None, None, None, None, Some(20)]
        );
        assert_eq!(window.starve(), None, "a fixed window stays");

        let mut window = Window::fixed(10, 0).unwrap();
        let credit = window.take(1, MAX_PAYLOAD_BYTES as u64).unwrap();
        assert_eq!(credit.limit_bytes, MAX_PAYLOAD_BYTES as u64 + WINDOW_BYTES);
    }

    #[test]
    fn windows_have_limits() {
        assert!(Window::fixed(0, 0).is_none() && Window::fixed(MAX_WINDOW + 1, 0).is_none());
        assert!(Window::fixed(MAX_WINDOW, 0).is_some());
    }

    #[test]
    fn a_window_may_begin_anywhere() {
        let mut window = Window::fixed(10, 1_000).unwrap();
        let Credit {
            acked,
            limit_index,
            limit_bytes,
        } = window.credit();
        assert_eq!((acked, limit_index, limit_bytes), (1_000, 1_010, WINDOW_BYTES));
        window.begin_at(77);
        assert_eq!(window.credit().limit_bytes, 77 + WINDOW_BYTES);
        let told = window.take(5, 5).unwrap();
        assert_eq!(
            (told.acked, told.limit_index, told.limit_bytes),
            (1_005, 1_015, 82 + WINDOW_BYTES)
        );

        let last = Window::auto(u64::MAX);
        assert_eq!(last.credit().limit_index, u64::MAX);
    }
}
