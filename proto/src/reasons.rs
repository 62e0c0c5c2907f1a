//! Why something was refused, in words programs may match on.
//!
//! A unary call carries them as `google.rpc.ErrorInfo.reason` of its status, a
//! session as `OperationError.reason`. `docs/errors.md` explains each.

/// The `ErrorInfo.domain` of every reason here.
pub const DOMAIN: &str = "asynq";

/// A field is malformed or out of range; the message names both.
pub const INVALID_FIELD: &str = "INVALID_FIELD";
/// A payload exceeds [`MAX_PAYLOAD_BYTES`](crate::limits::MAX_PAYLOAD_BYTES).
pub const PAYLOAD_TOO_LARGE: &str = "PAYLOAD_TOO_LARGE";
/// A task id lies more than five minutes ahead of the broker's clock.
pub const ID_IN_FUTURE: &str = "ID_IN_FUTURE";
/// A task id that is not known is older than the ids a broker remembers.
pub const ID_TOO_OLD: &str = "ID_TOO_OLD";
/// Another task of the queue has the key.
pub const KEY_TAKEN: &str = "KEY_TAKEN";
/// The id belongs to a task with another name, payload, queue or series.
pub const TASK_EXISTS: &str = "TASK_EXISTS";
/// The items asked for are taken and no longer kept; the message names the first that is.
pub const BELOW_FLOOR: &str = "BELOW_FLOOR";
/// Another reader reads the stream, and it was not asked to be taken over.
pub const BEING_READ: &str = "BEING_READ";
/// The stream was opened again after this, or another reader took it over.
pub const STALE_READER: &str = "STALE_READER";
/// The task yields no items.
pub const NOT_A_STREAM: &str = "NOT_A_STREAM";
/// The stream has not come to the item that was asked for.
pub const BEYOND_HEAD: &str = "BEYOND_HEAD";
/// The reader has read other items than the stream has.
pub const READ_OTHER_ITEMS: &str = "READ_OTHER_ITEMS";
/// The worker that runs the stream has not come back since the broker restarted.
pub const WORKER_AWAY: &str = "WORKER_AWAY";
/// The broker knows no task of this id.
pub const TASK_NOT_FOUND: &str = "TASK_NOT_FOUND";
/// The task to be retried has ended, but not dead; the message names its state.
pub const NOT_DEAD: &str = "NOT_DEAD";
/// The dead task would be of no use alive; the message says why.
pub const NOT_RETRYABLE: &str = "NOT_RETRYABLE";
/// The task is in none of the states that are to be purged.
pub const OTHER_STATE: &str = "OTHER_STATE";
/// The task ended, and its result is no longer kept.
pub const RESULT_EXPIRED: &str = "RESULT_EXPIRED";
/// A limit of the broker is reached; the message names it.
pub const LIMIT_REACHED: &str = "LIMIT_REACHED";
/// The broker's disk is full.
pub const DISK_FULL: &str = "DISK_FULL";
/// The broker is going down; connect again.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
/// The broker's store failed: whether anything happened is unknown.
pub const STORE_FAILED: &str = "STORE_FAILED";
/// The first message of a session carries no hello.
pub const SESSION_EXPECTED_HELLO: &str = "SESSION_EXPECTED_HELLO";
/// The lease token is not the task's current grant.
pub const STALE_LEASE: &str = "STALE_LEASE";
/// The call's own deadline passed; a task it waits for goes on.
pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
/// The worker session was taken up again on another connection.
pub const SESSION_SUPERSEDED: &str = "SESSION_SUPERSEDED";
/// The worker session had no heartbeat for too long.
pub const LEASE_OVER: &str = "LEASE_OVER";
/// The broker has no service of this name.
pub const UNKNOWN_SERVICE: &str = "UNKNOWN_SERVICE";
/// The service has no method of this name.
pub const UNKNOWN_METHOD: &str = "UNKNOWN_METHOD";
/// The request is not marked as gRPC, or as a kind of it that is not spoken here.
pub const NOT_GRPC: &str = "NOT_GRPC";
/// A message exceeds [`MAX_MESSAGE_BYTES`](crate::limits::MAX_MESSAGE_BYTES).
pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
/// A message is not what the call's definition says, or cut short, or missing.
pub const MALFORMED_MESSAGE: &str = "MALFORMED_MESSAGE";
/// A message is compressed in a way the broker does not know.
pub const COMPRESSION_UNKNOWN: &str = "COMPRESSION_UNKNOWN";
/// Reflection knows no file or symbol of this name.
pub const SYMBOL_NOT_FOUND: &str = "SYMBOL_NOT_FOUND";
/// The broker failed in a way that should not be.
pub const INTERNAL: &str = "INTERNAL";
/// The call carries no token, and the broker wants one.
pub const TOKEN_MISSING: &str = "TOKEN_MISSING";
/// The token is not, or no longer, one the broker knows.
pub const TOKEN_UNKNOWN: &str = "TOKEN_UNKNOWN";
/// The token's roles do not allow the call; the message names both.
pub const ROLE_MISSING: &str = "ROLE_MISSING";
