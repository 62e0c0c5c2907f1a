//! Listings on the wire: what is asked, and the token that says where to go on.

use asynq_core::{Name, Seq, StateName, StateSet, TaskFilter, Timestamp};
use asynq_proto::limits::{DEFAULT_LIST_TASKS, MAX_LIST_TASKS};
use asynq_proto::v1;

use super::{convert, render};
use crate::broker::{Error, ListTasks, Page};

pub(super) fn asked(request: v1::ListTasksRequest) -> Result<ListTasks, Error> {
    let limit = match request.limit {
        0 => DEFAULT_LIST_TASKS,
        limit @ 1..=MAX_LIST_TASKS => limit,
        limit => {
            let problem = format!("is {limit}, allowed are 1 to {MAX_LIST_TASKS}");
            return Err(convert::invalid("limit", problem));
        }
    };
    let some_name = |field, text: &str| match text {
        "" => Ok(None),
        text => convert::name(field, text).map(Some),
    };
    let series = request.series.as_deref().map(Name::or_empty).transpose();
    let filter = TaskFilter {
        states: states(&request.states)?,
        name: some_name("name", &request.name)?,
        queue: some_name("queue", &request.queue)?,
        series: series.map_err(|error| convert::bad_name("series", error))?,
        since: Timestamp::from_millis(request.since_ms),
    };
    Ok(ListTasks {
        filter,
        before: page(&request.page)?,
        limit: limit as usize,
    })
}

pub(super) fn reply(page: Page) -> v1::ListTasksReply {
    v1::ListTasksReply {
        tasks: page
            .tasks
            .into_iter()
            .map(|(_, view)| render::task_info(view))
            .collect(),
        next: page.next.map_or_else(String::new, token),
        now_ms: page.now.as_millis(),
    }
}

/// None is all.
pub(super) fn states(asked: &[i32]) -> Result<StateSet, Error> {
    let name = |&number: &i32| {
        let name = StateName::ALL
            .into_iter()
            .find(|&name| render::state(name) as i32 == number);
        name.ok_or_else(|| convert::invalid("states", format!("holds {number}; allowed are 1 to 8, see TaskState")))
    };
    match asked {
        [] => Ok(StateSet::ALL),
        asked => asked.iter().map(name).collect(),
    }
}

/// The place to go on before, and a check, so that a slip of the pen does not
/// list from somewhere.
fn token(Seq(before): Seq) -> String {
    format!("{before:x}-{:04x}", check(before))
}

/// "" is from the newest.
fn page(text: &str) -> Result<Option<Seq>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let place = text
        .split_once('-')
        .and_then(|(place, _)| u64::from_str_radix(place, 16).ok());
    // There is one way to write each.
    match place.map(Seq).filter(|&place| token(place) == text) {
        Some(place) => Ok(Some(place)),
        None => Err(convert::invalid(
            "page",
            "is no token of a broker; give what the listing before gave as next, or leave it out",
        )),
    }
}

/// 16 bits that differ for neighbours.
const fn check(place: u64) -> u16 {
    (place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(request: v1::ListTasksRequest) -> String {
        asked(request).expect_err("must be refused").to_string()
    }

    #[test]
    fn unset_fields_ask_for_all() {
        let ListTasks { filter, before, limit } = asked(v1::ListTasksRequest::default()).unwrap();
        assert_eq!((filter, before, limit), (TaskFilter::ALL, None, 50));
    }

    #[test]
    fn what_is_asked_reaches_the_broker() {
        let request = v1::ListTasksRequest {
            states: vec![v1::TaskState::Dead as i32, v1::TaskState::Ready as i32],
            name: "n".into(),
            queue: "q".into(),
            series: Some(String::new()),
            since_ms: 7,
            limit: 10_000,
            page: token(Seq(99)),
        };
        let ListTasks { filter, before, limit } = asked(request).unwrap();
        let expected = TaskFilter {
            states: StateSet::from_iter([StateName::Dead, StateName::Ready]),
            name: Some(Name::new("n").unwrap()),
            queue: Some(Name::new("q").unwrap()),
            series: Some(Name::or_empty("").unwrap()),
            since: Timestamp::from_millis(7),
        };
        assert_eq!((filter, before, limit), (expected, Some(Seq(99)), 10_000));
    }

    #[test]
    fn what_is_out_of_range_is_refused_naming_field_and_range() {
        let request = v1::ListTasksRequest::default;
        for (bad, parts) in [
            (
                v1::ListTasksRequest {
                    limit: 10_001,
                    ..request()
                },
                ["limit", "1 to 10000"],
            ),
            (
                v1::ListTasksRequest {
                    states: vec![9],
                    ..request()
                },
                ["states", "1 to 8"],
            ),
            (
                v1::ListTasksRequest {
                    states: vec![1, 0],
                    ..request()
                },
                ["states", "holds 0"],
            ),
            (
                v1::ListTasksRequest {
                    name: "a b".into(),
                    ..request()
                },
                ["name", "A-Z"],
            ),
            (
                v1::ListTasksRequest {
                    queue: "x".repeat(201),
                    ..request()
                },
                ["queue", "200"],
            ),
            (
                v1::ListTasksRequest {
                    series: Some("é".into()),
                    ..request()
                },
                ["series", "'é'"],
            ),
            (
                v1::ListTasksRequest {
                    page: "2".into(),
                    ..request()
                },
                ["page", "next"],
            ),
        ] {
            let said = refusal(bad);
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }

    #[test]
    fn a_token_is_what_a_broker_gave_and_nothing_else() {
        for place in [0, 1, 2, 1_000_000, u64::MAX] {
            assert_eq!(page(&token(Seq(place))).unwrap(), Some(Seq(place)));
        }
        let good = token(Seq(0xabc));
        let (place, check) = good.split_once('-').unwrap();
        for bad in [
            "-",
            "abc",
            "x",
            &format!("abd-{check}"),
            &format!("0{good}"),
            &format!("+{good}"),
            &format!("{good} "),
            &good.to_uppercase(),
            &format!("{place}-"),
            "ffffffffffffffffff-0000",
        ] {
            assert!(page(bad).is_err(), "{bad}");
        }
    }
}
