//! Tokens on every call: every call there is, with every identity there is.

use std::path::PathBuf;

use asynq_proto::v1::tasks_client::TasksClient;
use asynq_proto::v1::{self};
use asynq_proto::{Connector, Credentials, Token, Wire};
use asynqd::Access;
use asynqd::config::Security;
use http::uri::PathAndQuery;
use prost::Message;
use prost_types::FileDescriptorSet;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

use crate::harness::{Broker, soon};

const ROLES: [&str; 3] = ["caller", "worker", "admin"];

/// A tokens file, one token per role; `secret of ROLE` are the secrets.
struct Tokens {
    folder: TempDir,
}

impl Tokens {
    fn new() -> Self {
        let tokens = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        tokens.write(&ROLES);
        tokens
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tokens.toml")
    }

    fn write(&self, roles: &[&str]) {
        let tables = roles.iter().map(|role| {
            let hash = ring::digest::digest(&ring::digest::SHA256, secret(role).as_bytes());
            let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            format!(
                "[[token]]\nname = \"{role}s\"\nsha256 = \"{hash}\"\nnamespace = \"default\"\nroles = [\"{role}\"]\n"
            )
        });
        std::fs::write(self.file(), tables.collect::<String>()).unwrap();
    }

    fn access(&self) -> Access {
        Access::open(Security {
            tls: None,
            tokens: Some(self.file()),
        })
        .unwrap()
    }
}

fn secret(role: &str) -> String {
    format!("secret-of-{role}")
}

async fn wire(broker: &Broker, secret: Option<&str>) -> Wire {
    let credentials = Credentials {
        token: secret.map(|secret| Token::new(secret).unwrap()),
        ..Credentials::default()
    };
    let url = format!("http://{}", broker.address);
    let connector = Connector::tcp(url.parse().unwrap(), &credentials).unwrap();
    soon(connector.control()).await.unwrap()
}

/// The name of every call that is served.
pub(crate) fn calls() -> Vec<PathAndQuery> {
    let sets = [
        asynq_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.map(|set| FileDescriptorSet::decode(set).unwrap().file).concat();
    let services = files
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file, service)));
    let calls = services.flat_map(|(file, service)| {
        let path = format!("/{}.{}", file.package(), service.name());
        let methods = service.method.iter();
        methods.map(move |method| format!("{path}/{}", method.name()).parse().unwrap())
    });
    calls.collect()
}

/// Makes the call with one empty message, which no handler of a stream takes
/// for a beginning; gives the first that comes back.
async fn call(wire: Wire, path: &PathAndQuery) -> Result<(), Status> {
    let mut grpc = Grpc::new(wire);
    soon(grpc.ready()).await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let requests = Request::new(tokio_stream::once(()));
    let replies: Streaming<()> = soon(grpc.streaming(requests, path.clone(), codec)).await?.into_inner();
    let mut replies = replies;
    soon(replies.message()).await.map(drop)
}

fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().unwrap().reason)
}

#[tokio::test]
async fn every_call_takes_the_right_role_and_no_other() {
    let broker = Broker::secured(Tokens::new().access()).await;
    let calls = calls();
    assert!(calls.len() >= 20, "{calls:?}");
    let (none, wrong) = (wire(&broker, None).await, wire(&broker, Some("another-secret")).await);
    let mut of_roles = Vec::new();
    for role in ROLES {
        of_roles.push((role, wire(&broker, Some(&secret(role))).await));
    }
    for path in &calls {
        if path.path().starts_with("/grpc.health.") {
            // For those who have no token, and for those who have a wrong one.
            for wire in [&none, &wrong] {
                soon(call(wire.clone(), path)).await.unwrap();
            }
            continue;
        }
        let refused = call(none.clone(), path).await.unwrap_err();
        assert_eq!(
            reason(&refused),
            (Code::Unauthenticated, "TOKEN_MISSING".into()),
            "{path}"
        );
        let refused = call(wrong.clone(), path).await.unwrap_err();
        assert_eq!(
            reason(&refused),
            (Code::Unauthenticated, "TOKEN_UNKNOWN".into()),
            "{path}"
        );
        let right: &[&str] = match path.path().split('/').nth(1).unwrap() {
            "asynq.v1.Admin"
                if ["RetryTasks", "PurgeTasks", "SetQueue"]
                    .iter()
                    .any(|call| path.path().ends_with(call)) =>
            {
                &["admin"]
            }
            "asynq.v1.Tasks" | "asynq.v1.Admin" => &["caller", "admin"],
            "asynq.v1.Workers" => &["worker"],
            "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => &ROLES,
            other => panic!("{other}: say here who may call it"),
        };
        for (role, wire) in &of_roles {
            let called = call(wire.clone(), path).await;
            let denied = called
                .as_ref()
                .err()
                .filter(|status| matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied));
            match denied {
                None => assert!(right.contains(role), "{role} may call {path}: {called:?}"),
                Some(status) => {
                    assert!(!right.contains(role), "{role} may not call {path}: {status:?}");
                    assert_eq!(reason(status), (Code::PermissionDenied, "ROLE_MISSING".into()));
                    let said = status.message();
                    assert!(
                        said.contains(path.path()) && said.contains(&right.join(" or ")),
                        "{said}"
                    );
                }
            }
        }
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_that_is_almost_a_token_is_one() {
    let broker = Broker::secured(Tokens::new().access()).await;
    let hash = ring::digest::digest(&ring::digest::SHA256, secret("caller").as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = [
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {}", secret("caller")),
        secret("caller"),
        format!("Bearer {}", secret("caller").to_uppercase()),
        format!("Bearer {}x", secret("caller")),
        format!("Bearer {}", &secret("caller")[1..]),
        format!("Bearer  {}", secret("caller")),
        format!("Bearer {hash}"),
        format!("Bearer {}", "x".repeat(8_000)),
    ];
    for header in headers {
        let mut request = Request::new(v1::ListQueuesRequest::default());
        request.metadata_mut().insert("authorization", header.parse().unwrap());
        let refused = soon(broker.admin().await.list_queues(request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{header}");
        assert!(!refused.message().contains("secret-of"), "{refused:?}");
    }
    let mut request = Request::new(v1::ListQueuesRequest::default());
    let header = format!("bearer {}", secret("admin"));
    request.metadata_mut().insert("authorization", header.parse().unwrap());
    soon(broker.admin().await.list_queues(request)).await.unwrap();
    // What nobody has thought of, nobody may call.
    let path = PathAndQuery::from_static("/asynq.v1.Tasks/Drop");
    let refused = call(wire(&broker, Some(&secret("admin"))).await, &path)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    broker.stop().await.unwrap();
}

/// A session that has been welcomed.
async fn session(wire: Wire) -> (mpsc::Sender<v1::SessionRequest>, Streaming<v1::SessionReply>) {
    let (requests, outgoing) = mpsc::channel(4);
    let hello = v1::SessionRequest {
        hello: Some(v1::SessionHello::default()),
        operations: Vec::new(),
    };
    requests.send(hello).await.unwrap();
    let mut tasks = TasksClient::new(wire);
    let mut replies = soon(tasks.session(ReceiverStream::new(outgoing)))
        .await
        .unwrap()
        .into_inner();
    assert!(soon(replies.message()).await.unwrap().unwrap().welcome.is_some());
    (requests, replies)
}

#[tokio::test]
async fn a_token_that_is_taken_out_ends_what_it_opened() {
    let tokens = Tokens::new();
    let access = tokens.access();
    let broker = Broker::secured(access.clone()).await;
    let caller = wire(&broker, Some(&secret("caller"))).await;
    let admin = wire(&broker, Some(&secret("admin"))).await;
    let (_ours, mut ended) = session(caller.clone()).await;
    let (_theirs, mut goes_on) = session(admin.clone()).await;
    let task = v1::EnqueueRequest {
        name: "later".into(),
        ..Default::default()
    };
    let id = soon(TasksClient::new(caller.clone()).enqueue(task))
        .await
        .unwrap()
        .into_inner()
        .id;
    let mut waiting = TasksClient::new(caller.clone());
    let wait = tokio::spawn({
        let id = id.clone();
        async move { waiting.wait(v1::WaitRequest { id }).await }
    });
    // Another call on the same connection, after which the wait is under way.
    soon(TasksClient::new(caller.clone()).show(v1::ShowRequest { id: id.clone() }))
        .await
        .unwrap();

    // A file that makes no sense changes nothing.
    std::fs::write(tokens.file(), "[[token]]\nname = 1\n").unwrap();
    assert!(access.reload().unwrap_err().to_string().contains("line 2"));
    soon(TasksClient::new(caller.clone()).show(v1::ShowRequest { id: id.clone() }))
        .await
        .unwrap();

    tokens.write(&["worker", "admin"]);
    access.reload().unwrap();
    let revoked = (Code::Unauthenticated, "TOKEN_UNKNOWN".to_owned());
    assert_eq!(reason(&soon(ended.message()).await.unwrap_err()), revoked);
    assert_eq!(reason(&soon(wait).await.unwrap().unwrap_err()), revoked);
    let refused = soon(TasksClient::new(caller).show(v1::ShowRequest { id: id.clone() })).await;
    assert_eq!(reason(&refused.unwrap_err()), revoked);

    soon(TasksClient::new(admin).show(v1::ShowRequest { id }))
        .await
        .unwrap();
    broker.ask_to_stop();
    assert!(
        soon(goes_on.message())
            .await
            .is_err_and(|status| status.code() == Code::Unavailable)
    );
    broker.stop().await.unwrap();
}
