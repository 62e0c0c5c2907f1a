//! Streams that break anywhere and are opened again, against what their items are.

use super::*;

const TASK: &str = "019aab6c-7d3e-7c41-9f0e-3b5d2a64e8f1";

/// A broker that has all items, and where each lies.
struct Source {
    items: Vec<Vec<u8>>,
    places: Vec<Place>,
}

impl Source {
    fn new(items: Vec<Vec<u8>>) -> Self {
        let mut place = Place::START;
        let mut places = vec![place];
        for item in &items {
            place.pass(item);
            places.push(place);
        }
        Self { items, places }
    }

    fn random(dice: &mut fastrand::Rng) -> Self {
        let count = dice.usize(0..60);
        let item = |dice: &mut fastrand::Rng| (0..dice.usize(0..5)).map(|_| dice.u8(..)).collect();
        Self::new((0..count).map(|_| item(dice)).collect())
    }

    fn batch(&self, from: usize, to: usize) -> v1::ItemBatch {
        let items = &self.items[from..to];
        v1::ItemBatch {
            first_index: from as u64,
            first_byte: self.places[from].byte,
            lengths: items.iter().map(|item| u32::try_from(item.len()).unwrap()).collect(),
            data: items.concat().into(),
            content_type: String::new(),
        }
    }
}

fn head(at: Place) -> Head {
    Head::new(TASK.parse().unwrap(), at)
}

fn unknown(place: Place) -> Place {
    Place {
        digest: None,
        before: None,
        ..place
    }
}

/// Reads all of a stream that breaks as the dice say, from an item on.
fn read(source: &Source, first: usize, knows: bool, dice: &mut fastrand::Rng) {
    let begin = match knows {
        true => source.places[first],
        false => unknown(source.places[first]),
    };
    let mut head = head(begin);
    let mut came: Vec<Vec<u8>> = Vec::new();
    // Places the reader has been at, of which it is done with one.
    let mut places = vec![begin];
    let mut cursor = first;
    while cursor < source.items.len() || head.end(source.items.len() as u64).is_err() {
        if dice.u8(0..4) == 0 {
            let from = places[dice.usize(0..places.len())];
            let at = source.places[usize::try_from(from.index).unwrap()];
            let at = if dice.bool() { at } else { unknown(at) };
            head.reopen(from, at).unwrap();
            cursor = usize::try_from(from.index).unwrap();
        }
        if cursor == source.items.len() {
            continue;
        }
        let to = dice.usize(cursor + 1..=source.items.len());
        if let Some(mut batch) = head.take(source.batch(cursor, to)).unwrap() {
            while let Some(item) = batch.next() {
                came.push(item.into_data().to_vec());
                let (place, truth) = (batch.place(), source.places[first + came.len()]);
                assert_eq!((place.index, place.byte), (truth.index, truth.byte));
                assert!(place.digest.is_none_or(|digest| Some(digest) == truth.digest));
                assert!(!knows || place == truth);
                places.push(place);
            }
        }
        cursor = to;
        assert_eq!(head.place().index, (first + came.len()) as u64);
    }
    assert_eq!(came, source.items[first..]);
}

#[test]
fn wherever_it_breaks_nothing_is_lost_and_nothing_comes_twice() {
    for seed in 0..2_000 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let source = Source::random(&mut dice);
        let first = dice.usize(0..=source.items.len());
        read(&source, first, first == 0 || dice.bool(), &mut dice);
    }
}

#[test]
fn other_items_than_before_are_seen_and_named() {
    for seed in 0..500 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut source = Source::random(&mut dice);
        source.items.push(b"at least one".to_vec());
        let source = Source::new(source.items);
        let count = source.items.len();
        let mut head = head(Place::START);
        assert!(head.take(source.batch(0, count)).unwrap().is_some());
        // Read again from `from` on, one item is another.
        let from = dice.usize(0..count);
        let mut changed = source.items.clone();
        changed[dice.usize(from..count)].insert(0, b'!');
        let changed = Source::new(changed);
        head.reopen(source.places[from], source.places[from]).unwrap();
        let error = head.take(changed.batch(from, count)).unwrap_err();
        assert!(
            matches!(error, Error::StreamChanged { index, .. } if index == count as u64),
            "{error:?}"
        );
    }
}

#[test]
fn a_digest_that_differs_at_once_is_seen_at_once() {
    let source = Source::new(vec![b"a".to_vec(), b"b".to_vec()]);
    let mut head = head(Place::START);
    assert!(head.take(source.batch(0, 2)).unwrap().is_some());
    let other = Place {
        digest: Some(7),
        ..source.places[1]
    };
    let error = head.reopen(source.places[1], other).unwrap_err();
    assert!(matches!(error, Error::StreamChanged { index: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("item 1"), "{error}");
}

#[test]
fn a_broker_that_begins_elsewhere_or_ends_early_is_not_followed() {
    let source = Source::new(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    let mut head = head(Place::START);
    assert!(head.take(source.batch(0, 2)).unwrap().is_some());
    let [zero, one, two, three] = source.places[..] else {
        panic!("four places")
    };
    let byte = Place { byte: 9, ..one };
    for (from, at) in [(one, two), (one, zero), (one, byte), (three, three)] {
        assert_eq!(head.reopen(from, at).unwrap_err().reason(), "UNEXPECTED");
    }
    assert!(head.end(2).is_ok() && head.end(3).is_err() && head.end(1).is_err());
    head.reopen(one, one).unwrap();
    assert!(head.end(2).is_err(), "one item is to come again");
    assert!(head.take(source.batch(2, 3)).is_err(), "an item is left out");
    assert!(head.take(source.batch(1, 2)).unwrap().is_none());
    assert!(head.end(2).is_ok());
}
