//! What can be asked in a session, and how it goes on the wire.

use asynq_proto::v1::{self, operation::Op as WireOp};

use super::flows::ConsumerId;
use crate::TaskId;

/// What can be asked in a session.
#[derive(Debug)]
pub(super) enum Op {
    Enqueue(Box<v1::EnqueueRequest>),
    Wait(TaskId),
    Cancel(TaskId),
    Stop(TaskId, ConsumerId),
    Show(TaskId),
    Explain(TaskId),
    History(TaskId),
}

impl Op {
    /// Whether it is answered only when its task ends.
    pub(super) fn waits(&self) -> bool {
        match self {
            Self::Enqueue(request) => request.wait,
            Self::Wait(_) => true,
            Self::Cancel(_) | Self::Stop(..) | Self::Show(_) | Self::Explain(_) | Self::History(_) => false,
        }
    }

    /// About how many bytes it takes on the wire.
    pub(super) fn weight(&self) -> usize {
        const AROUND: usize = 128;
        let payload = match self {
            Self::Enqueue(request) => request.payload.as_ref().map_or(0, |payload| payload.data.len()),
            _ => 0,
        };
        AROUND + payload
    }

    pub(super) fn to_wire(&self, first_send: bool) -> WireOp {
        match self {
            Self::Enqueue(request) => {
                let first_send = first_send && request.first_send;
                WireOp::Enqueue(v1::EnqueueRequest {
                    first_send,
                    ..v1::EnqueueRequest::clone(request)
                })
            }
            Self::Wait(id) => WireOp::Wait(v1::WaitRequest { id: id.to_wire() }),
            Self::Cancel(id) => WireOp::Cancel(v1::CancelRequest { id: id.to_wire() }),
            Self::Stop(id, consumer) => WireOp::Stop(v1::StopRequest {
                id: id.to_wire(),
                consumer_id: consumer.to_wire(),
            }),
            Self::Show(id) => WireOp::Show(v1::ShowRequest { id: id.to_wire() }),
            Self::Explain(id) => WireOp::Explain(v1::ExplainRequest { id: id.to_wire() }),
            Self::History(id) => WireOp::History(v1::HistoryRequest { id: id.to_wire() }),
        }
    }
}
