//! Reflection, in both versions: what it lists is what there is.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{Broker, reason, soon};
use crate::tokens::calls;

/// The same messages have two names, one for each version.
macro_rules! version {
    ($version:ident) => {
        mod $version {
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::{ServerReflectionRequest, ServerReflectionResponse};

            use super::*;

            #[tokio::test]
            async fn every_call_is_found_and_its_messages_with_it() {
                let broker = Broker::start().await;
                let (requests, outgoing) = mpsc::channel(4);
                let mut client = ServerReflectionClient::new(broker.channel().await);
                let replies = soon(client.server_reflection_info(ReceiverStream::new(outgoing))).await;
                let mut replies = replies.unwrap().into_inner();
                let mut ask = async |request| {
                    let request = ServerReflectionRequest {
                        message_request: Some(request),
                        ..Default::default()
                    };
                    requests.send(request).await.unwrap();
                    let reply: ServerReflectionResponse = soon(replies.message()).await.unwrap().unwrap();
                    reply.message_response.unwrap()
                };
                let MessageResponse::ListServicesResponse(list) =
                    ask(MessageRequest::ListServices(String::new())).await
                else {
                    panic!("no list")
                };
                let mut found = BTreeSet::new();
                for service in list.service {
                    let asked = MessageRequest::FileContainingSymbol(service.name.clone());
                    let MessageResponse::FileDescriptorResponse(files) = ask(asked).await else {
                        panic!("no file of {}", service.name)
                    };
                    let file = FileDescriptorProto::decode(&files.file_descriptor_proto[0][..]).unwrap();
                    found.extend(super::calls_of(&service.name, &file));
                    for needed in &file.dependency {
                        let asked = MessageRequest::FileByFilename(needed.clone());
                        let answer = ask(asked).await;
                        assert!(
                            matches!(answer, MessageResponse::FileDescriptorResponse(_)),
                            "{needed}"
                        );
                    }
                }
                let all: BTreeSet<String> = calls().iter().map(|path| path.path().to_owned()).collect();
                assert_eq!(found, all);
                // The stream is open, and the drain ends it.
                broker.ask_to_stop();
                let end = soon(replies.message()).await.unwrap_err();
                assert_eq!(reason(&end), "SHUTTING_DOWN");
                broker.stop().await.unwrap();
            }
        }
    };
}

version!(v1);
version!(v1alpha);

fn calls_of(service: &str, file: &FileDescriptorProto) -> Vec<String> {
    let described = file
        .service
        .iter()
        .find(|described| format!("{}.{}", file.package(), described.name()) == service);
    let methods = described.unwrap().method.iter();
    methods.map(|method| format!("/{service}/{}", method.name())).collect()
}
