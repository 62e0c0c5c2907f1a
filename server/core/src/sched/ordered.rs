//! An ordered set with its smallest value kept apart: of most sets here that is
//! the only one, and it is the one that is asked for and replaced.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

/// Values in order; no two are equal.
#[derive(Debug)]
pub(crate) struct Ordered<T> {
    first: Option<T>,
    /// All others, each greater than `first`; empty without it.
    rest: BTreeSet<T>,
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: BTreeSet::new(),
        }
    }
}

impl<T: Ord + Copy> Ordered<T> {
    pub(crate) fn first(&self) -> Option<&T> {
        self.first.as_ref()
    }

    /// The smallest that is greater than `value`.
    pub(crate) fn after(&self, value: &T) -> Option<&T> {
        let first = self.first.as_ref().filter(|first| *first > value);
        first.or_else(|| self.rest.range((Excluded(value), Unbounded)).next())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn insert(&mut self, value: T) {
        match self.first {
            None => self.first = Some(value),
            Some(first) if value < first => {
                self.rest.insert(first);
                self.first = Some(value);
            }
            Some(_) => {
                self.rest.insert(value);
            }
        }
    }

    pub(crate) fn remove(&mut self, value: &T) {
        if self.first.as_ref() == Some(value) {
            self.first = self.rest.pop_first();
        } else {
            self.rest.remove(value);
        }
    }

    /// Takes `old` out and puts `new` in.
    pub(crate) fn replace(&mut self, old: &T, new: T) {
        if *old == new {
            return;
        }
        let stays_first = self.first.as_ref() == Some(old) && self.rest.first().is_none_or(|next| new < *next);
        if stays_first {
            self.first = Some(new);
        } else {
            self.remove(old);
            self.insert(new);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((0_u8..3, 0_u8..12, 0_u8..12), 0..60)) {
            let (mut ordered, mut set) = (Ordered::default(), BTreeSet::new());
            for (step, a, b) in steps {
                match step {
                    0 if set.insert(a) => ordered.insert(a),
                    1 if set.remove(&a) => ordered.remove(&a),
                    2 if set.contains(&a) && (a == b || !set.contains(&b)) => {
                        set.remove(&a);
                        set.insert(b);
                        ordered.replace(&a, b);
                    }
                    _ => {}
                }
                prop_assert!(ordered.iter().eq(&set), "{ordered:?} is not {set:?}");
                prop_assert_eq!(ordered.first(), set.first());
                prop_assert_eq!(ordered.after(&b), set.range(b + 1..).next());
                prop_assert_eq!(ordered.is_empty(), set.is_empty());
            }
        }
    }
}
