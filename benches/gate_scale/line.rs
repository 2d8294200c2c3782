//! A client of the gate: one connection that is kept, as a proxy has it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection. It blocks: nothing else shall come between a question and its answer.
pub struct Line {
    stream: TcpStream,
    buffer: [u8; 4096],
}

/// What nginx asks about this token.
pub fn question(token: &str) -> Vec<u8> {
    format!(
        "GET /authz/nginx?audience=orders-api&scope=orders:read HTTP/1.1\r\nHost: gate:8181\r\n\
         X-Forwarded-For: 10.1.2.3\r\nX-Original-URI: /v1/orders/4711?expand=lines\r\nX-Original-Method: GET\r\n\
         User-Agent: orders-client/2.7 (linux)\r\nAccept: application/json\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

impl Line {
    /// Connects.
    pub fn connect(gate: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(gate)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, buffer: [0; 4096] })
    }

    /// Asks, and returns the status code.
    pub fn ask(&mut self, question: &[u8]) -> io::Result<u16> {
        self.stream.write_all(question)?;
        let mut length = 0;
        // Answers have no body.
        while !self.buffer[..length].ends_with(b"\r\n\r\n") {
            let read = self.stream.read(&mut self.buffer[length..])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length += read;
        }
        let code = self.buffer.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
        code.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
