//! The wire of asynq, and the contract callers and workers share: generated
//! messages, typed task names, payloads, errors, limits, the connector.

/// Messages and services generated from `asynq/v1/*.proto`.
#[expect(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("asynq.v1");
}
