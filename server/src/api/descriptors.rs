//! What is served on the gRPC port, in the words of protobuf. One list: what
//! reflection shows, what is routed, and what the policy is held to.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic_reflection::pb::{v1, v1alpha};

/// The descriptors of all services, ours first.
pub(crate) const SETS: [&[u8]; 4] = [
    asynq_proto::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    v1::FILE_DESCRIPTOR_SET,
    v1alpha::FILE_DESCRIPTOR_SET,
];

/// What there is to know of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The answer is a stream, which may last.
    pub(crate) streams: bool,
}

/// Every call, as `/package.Service/Method`.
static CALLS: LazyLock<HashMap<String, Shape>> = LazyLock::new(|| SETS.iter().flat_map(|set| calls_of(set)).collect());

/// The call of this path, if there is one.
pub(crate) fn shape(path: &str) -> Option<Shape> {
    CALLS.get(path).copied()
}

/// Whether there is a service of this name, with its package.
pub(super) fn has_service(name: &str) -> bool {
    CALLS.keys().any(|path| path.split('/').nth(1) == Some(name))
}

/// The paths of all calls, in no order.
#[cfg(test)]
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    CALLS.keys().map(String::as_str)
}

fn calls_of(set: &[u8]) -> Vec<(String, Shape)> {
    let set = FileDescriptorSet::decode(set).expect("descriptors are compiled in, and a test reads them");
    set.file.iter().flat_map(calls_of_file).collect()
}

fn calls_of_file(file: &FileDescriptorProto) -> impl Iterator<Item = (String, Shape)> {
    file.service.iter().flat_map(move |service| {
        service.method.iter().map(move |method| {
            let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
            let streams = method.server_streaming();
            (path, Shape { streams })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_others_and_streams_from_single_answers() {
        let streams = |path| shape(path).map(|call| call.streams);
        for path in [
            "/asynq.v1.Tasks/Session",
            "/asynq.v1.Tasks/Iterate",
            "/asynq.v1.Workers/Work",
            "/asynq.v1.Workers/Emit",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(streams(path), Some(true), "{path}");
        }
        for path in [
            "/asynq.v1.Tasks/Wait",
            "/asynq.v1.Admin/ListTasks",
            "/grpc.health.v1.Health/Check",
        ] {
            assert_eq!(streams(path), Some(false), "{path}");
        }
        for path in [
            "",
            "/",
            "/asynq.v1.Tasks/Drop",
            "asynq.v1.Tasks/Wait",
            "/asynq.v1.Tasks",
        ] {
            assert_eq!(streams(path), None, "{path}");
        }
        assert!(has_service("asynq.v1.Tasks") && !has_service("asynq.v2.Tasks") && !has_service(""));
    }
}
