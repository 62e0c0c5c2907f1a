//! The wire of asynq, and the contract callers and workers share: generated
//! messages, typed task names, payloads, errors, durations, limits, the connector and its credentials.

pub mod backoff;
mod codec;
pub mod connect;
pub mod credentials;
pub mod duration;
mod ended;
mod endpoint;
mod error;
pub mod ids;
pub mod limits;
mod payload;
mod place;
pub mod reasons;
pub mod settings;
mod task;
mod tls;
mod token;

pub use backoff::Backoff;
pub use connect::{ConnectError, Connector, Endpoint, EndpointError, Wire};
pub use credentials::{Credentials, CredentialsError};
pub use duration::DurationError;
pub use ended::DeadReason;
pub use error::{KIND_CRASH, KIND_ERROR, KIND_NON_DETERMINISTIC, KIND_PANIC, KIND_REJECTED, KIND_TIMEOUT, TaskError};
pub use ids::IdMaker;
pub use payload::{DecodeError, EncodeError, JSON, OCTET_STREAM, Payload};
pub use place::{Place, digest_after};
pub use task::{Iter, NameError, OnLoss, Task, check_name};
pub use tls::TlsError;
pub use token::{Token, TokenError};

/// A `google.protobuf.FileDescriptorSet` of `asynq/v1/*.proto`, for reflection.
/// A constant, so that only programs that use it carry it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Messages and services generated from `asynq/v1/*.proto`.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("asynq.v1");
}
