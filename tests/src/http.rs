//! A plain GET, for the broker's HTTP port.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::{PATIENCE, within};

/// Asks for a page: its status, its headers and its text.
///
/// # Panics
/// When there is no answer.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = within(path, PATIENCE, asking).await;
    let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{path}: not an answer: {answer:?}"));
    (status, head.to_ascii_lowercase(), text.to_owned())
}
