//! Both ends of TLS: every bad certificate is refused, and each end says why.

use asynq_proto::v1::admin_client::AdminClient;
use asynq_proto::v1::{self};
use asynq_proto::{ConnectError, Connector, Credentials, TlsError};
use asynqd::clock::SystemClock;
use asynqd::config::{Security, TlsFiles};
use asynqd::{Access, Backing, Server};
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::certs::{CLIENT, Ca, Pair, SERVER, Valid};
use crate::harness::{Broker, soon};

fn security(pair: &Pair, client_ca: Option<&Ca>) -> Security {
    Security {
        tls: Some(TlsFiles {
            cert: pair.cert.clone(),
            key: pair.key.clone(),
            client_ca: client_ca.map(Ca::file),
        }),
        tokens: None,
    }
}

async fn broker(pair: &Pair, client_ca: Option<&Ca>) -> Broker {
    Broker::secured(Access::open(security(pair, client_ca)).unwrap()).await
}

fn trusting(ca: &Ca) -> Credentials {
    Credentials {
        ca: Some(ca.file()),
        ..Credentials::default()
    }
}

fn showing(ca: &Ca, pair: &Pair) -> Credentials {
    Credentials {
        cert: Some(pair.cert.clone()),
        key: Some(pair.key.clone()),
        ..trusting(ca)
    }
}

fn connector(url: &str, credentials: &Credentials) -> Connector {
    Connector::tcp(url.parse().unwrap(), credentials).unwrap()
}

/// One call over the control connection, and one over the data connection.
async fn call(connector: &Connector) -> Result<(), ConnectError> {
    let request = || v1::ListQueuesRequest::default();
    let mut control = AdminClient::new(soon(connector.control()).await?);
    for wire in [&mut control, &mut AdminClient::new(connector.data())] {
        if let Err(status) = soon(wire.list_queues(request())).await {
            return Err(connector.trouble().unwrap_or_else(|| panic!("{status:?}")));
        }
    }
    Ok(())
}

async fn refused(connector: &Connector) -> TlsError {
    match call(connector).await {
        Err(ConnectError::Tls { problem, endpoint }) => {
            assert_eq!(endpoint, *connector.endpoint());
            problem
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_a_good_certificate_of_the_broker_is_trusted() {
    let (ours, foreign, namesake) = (Ca::new("ours"), Ca::new("foreign"), Ca::new("ours"));
    let elsewhere = vec!["elsewhere.example".into()];
    for (pair, problem) in [
        (ours.sign("expired", SERVER, Valid::NoMore), TlsError::Expired),
        (ours.sign("early", SERVER, Valid::NotYet), TlsError::NotYetValid),
        (ours.sign("client", CLIENT, Valid::Now), TlsError::NotForServers),
        (
            ours.sign_for("elsewhere", elsewhere, SERVER, Valid::Now),
            TlsError::WrongName("127.0.0.1".into()),
        ),
        (foreign.sign("foreign", SERVER, Valid::Now), TlsError::UnknownIssuer),
        (namesake.sign("namesake", SERVER, Valid::Now), TlsError::UnknownIssuer),
    ] {
        let broker = broker(&pair, None).await;
        assert_eq!(refused(&connector(&broker.https(), &trusting(&ours))).await, problem);
        assert!(!problem.is_by_broker());
        broker.stop().await.unwrap();
    }
    let broker = broker(&ours.sign("good", SERVER, Valid::Now), None).await;
    call(&connector(&broker.https(), &trusting(&ours))).await.unwrap();
    // The CAs of the system do not know ours, where there are any.
    match Connector::tcp(broker.https().parse().unwrap(), &Credentials::default()) {
        Ok(connector) => assert_eq!(refused(&connector).await, TlsError::UnknownIssuer),
        Err(error) => assert!(error.to_string().contains("--ca"), "{error}"),
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn only_a_good_certificate_lets_a_client_in() {
    let (ours, foreign, namesake) = (Ca::new("ours"), Ca::new("foreign"), Ca::new("ours"));
    let server = ours.sign("server", SERVER, Valid::Now);
    let broker = broker(&server, Some(&ours)).await;
    let good = showing(&ours, &ours.sign("good", CLIENT, Valid::Now));
    call(&connector(&broker.https(), &good)).await.unwrap();

    let unsupported = || TlsError::CertificateRefused("UnsupportedCertificate".into());
    for (credentials, problem) in [
        (trusting(&ours), TlsError::CertificateMissing),
        (
            showing(&ours, &ours.sign("expired", CLIENT, Valid::NoMore)),
            TlsError::CertificateExpired,
        ),
        (
            showing(&ours, &ours.sign("early", CLIENT, Valid::NotYet)),
            TlsError::CertificateExpired,
        ),
        (
            showing(&ours, &foreign.sign("foreign", CLIENT, Valid::Now)),
            TlsError::CertificateUnknown,
        ),
        (
            showing(&ours, &namesake.sign("namesake", CLIENT, Valid::Now)),
            TlsError::CertificateUnknown,
        ),
        (showing(&ours, &server), unsupported()),
    ] {
        assert!(problem.is_by_broker());
        let connector = connector(&broker.https(), &credentials);
        assert_eq!(refused(&connector).await, problem);
        // The data connection is no way around.
        let status = soon(AdminClient::new(connector.data()).list_queues(v1::ListQueuesRequest::default())).await;
        assert!(status.is_err());
    }
    call(&connector(&broker.https(), &good)).await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn who_speaks_tls_to_one_who_does_not_is_told() {
    let ours = Ca::new("ours");
    let secure = broker(&ours.sign("server", SERVER, Valid::Now), None).await;
    let plain = connector(&format!("http://{}", secure.address), &Credentials::default());
    assert_eq!(refused(&plain).await, TlsError::NeedsTls);
    // Whatever else is said in clear is not heard either.
    for said in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0\0\0",
        b"\x15\x03\x03\0\x02\x02\x0a",
    ] {
        let mut stream = TcpStream::connect(secure.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 10]);
    }
    secure.stop().await.unwrap();

    let open = Broker::start().await;
    assert_eq!(
        refused(&connector(&open.https(), &trusting(&ours))).await,
        TlsError::SpeaksNoTls
    );
    open.stop().await.unwrap();
}

#[tokio::test]
async fn silent_handshakes_hold_nobody_up() {
    let ours = Ca::new("ours");
    let broker = broker(&ours.sign("server", SERVER, Valid::Now), None).await;
    let mut silent = Vec::new();
    for n in 0..500 {
        let mut stream = TcpStream::connect(broker.address).await.unwrap();
        // Some have begun, and say no more.
        stream.write_all(&[0x16, 3, 1, 2, 0][..n % 6]).await.unwrap();
        silent.push(stream);
    }
    call(&connector(&broker.https(), &trusting(&ours))).await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_finished_is_ended() {
    let ours = Ca::new("ours");
    let server = ours.sign("server", SERVER, Valid::Now);
    for said in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let (mut silent, theirs) = tokio::io::duplex(1024);
        let incoming = stream::once(async { theirs }).chain(stream::pending());
        let access = Access::open(security(&server, None)).unwrap();
        let opened = Server::open(Backing::memory(), Arc::new(SystemClock::new())).await;
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(opened.unwrap().access(access).serve(incoming, shutdown.clone()));
        let began = tokio::time::Instant::now();
        silent.write_all(said).await.unwrap();
        assert_eq!(silent.read(&mut [0; 9]).await.unwrap(), 0);
        let limit = asynqd::limits::HANDSHAKE_TIMEOUT;
        assert!((limit..limit + Duration::from_secs(1)).contains(&began.elapsed()));
        // The store's threads, which are waited for now, know no paused time.
        tokio::time::resume();
        shutdown.cancel();
        serving.await.unwrap().unwrap();
        tokio::time::pause();
    }
}

#[tokio::test]
async fn certificates_are_read_again_and_a_broken_file_changes_nothing() {
    let (ours, next) = (Ca::new("ours"), Ca::new("next"));
    let server = ours.sign("server", SERVER, Valid::Now);
    let access = Access::open(security(&server, Some(&ours))).unwrap();
    let broker = Broker::secured(access.clone()).await;
    let old = connector(&broker.https(), &showing(&ours, &ours.sign("old", CLIENT, Valid::Now)));
    let client = next.sign("new", CLIENT, Valid::Now);
    let new = connector(&broker.https(), &showing(&next, &client));
    let mut open = AdminClient::new(old.control().await.unwrap());
    soon(open.list_queues(v1::ListQueuesRequest::default())).await.unwrap();
    assert_eq!(refused(&new).await, TlsError::UnknownIssuer);

    let good = std::fs::read(&server.key).unwrap();
    for broken in [&b""[..], b"no key", &std::fs::read(&client.key).unwrap()] {
        std::fs::write(&server.key, broken).unwrap();
        let said = access.reload().unwrap_err().to_string();
        assert!(said.contains("server."), "{said}");
        call(&old).await.unwrap();
    }
    std::fs::write(&server.key, good).unwrap();
    access.reload().unwrap();
    call(&old).await.unwrap();

    let renewed = next.sign("server", SERVER, Valid::Now);
    std::fs::copy(&renewed.cert, &server.cert).unwrap();
    std::fs::copy(&renewed.key, &server.key).unwrap();
    std::fs::copy(next.file(), ours.file()).unwrap();
    access.reload().unwrap();
    call(&new).await.unwrap();
    assert_eq!(refused(&old).await, TlsError::UnknownIssuer);
    // What was open goes on.
    soon(open.list_queues(v1::ListQueuesRequest::default())).await.unwrap();
    broker.stop().await.unwrap();
}
