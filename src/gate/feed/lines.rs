//! A watch's answer, line by line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead as _, Error, ErrorKind};

use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Bytes};
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::object::Object;
use super::state::Change;

/// Most bytes of a line. The API server stores no object that is a tenth as long.
const MAX_LINE: usize = 16 << 20;

/// What ends a streaming list.
const END: &str = "k8s.io/initial-events-end";

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Line {
    /// An object was added, modified or deleted.
    Object(Change, Box<Object>),
    /// The same, of an object that cannot even be named.
    Unnamed(Change),
    /// Everything up to a version was sent.
    Bookmark { version: String, end: bool },
    /// The watch ends with an error.
    Error(Box<Status>),
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMetadata {
    resource_version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The lines of one answer.
pub(super) struct Lines<B = Body> {
    body: B,
    buffer: Vec<u8>,
    /// Where the next line begins.
    begin: usize,
    /// Up to where there is no end of a line.
    searched: usize,
    received: Instant,
}

impl<B> Lines<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<tower::BoxError>,
{
    pub(super) fn new(body: B) -> Self {
        Self { body, buffer: Vec::new(), begin: 0, searched: 0, received: Instant::now() }
    }

    /// When what was last returned arrived.
    pub(super) fn received(&self) -> Instant {
        self.received
    }

    /// The next line; `None` at the end. What is left of a line that broke off is dropped. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> kube::Result<Option<Line>> {
        loop {
            if let Some(end) = self.end_of_line()? {
                let line = parse(&self.buffer[self.begin..end]);
                (self.begin, self.searched) = (end, end);
                return line.map(Some);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| kube::Error::ReadEvents(Error::other(error)))?;
            let Ok(data) = frame.into_data() else { continue };
            self.received = Instant::now();
            self.make_room();
            self.buffer.extend_from_slice(&data);
        }
    }

    /// One past the end of the line that begins at `begin`, if it is complete.
    fn end_of_line(&mut self) -> kube::Result<Option<usize>> {
        let mut rest = &self.buffer[self.searched..];
        let read = rest.skip_until(b'\n').map_err(kube::Error::ReadEvents)?;
        let end = self.searched + read;
        if read > 0 && self.buffer[end - 1] == b'\n' {
            return Ok(Some(end));
        }
        self.searched = end;
        if end - self.begin > MAX_LINE {
            let error = Error::new(ErrorKind::InvalidData, "a line of a watch is too long");
            return Err(kube::Error::ReadEvents(error));
        }
        Ok(None)
    }

    /// Forgets what was returned, and a buffer that one long burst had made large.
    fn make_room(&mut self) {
        self.buffer.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
    }
}

fn parse(line: &[u8]) -> kube::Result<Line> {
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(kube::Error::SerdeError)?;
    let change = match &*frame.kind {
        "ADDED" | "MODIFIED" => Change::Applied,
        "DELETED" => Change::Deleted,
        "BOOKMARK" => {
            let Bookmark { metadata } =
                serde_json::from_str(frame.object.get()).map_err(kube::Error::SerdeError)?;
            let end = metadata.annotations.get(END).is_some_and(|value| value == "true");
            return Ok(Line::Bookmark { version: metadata.resource_version, end });
        }
        "ERROR" => {
            let status =
                serde_json::from_str::<Status>(frame.object.get()).map_err(kube::Error::SerdeError)?;
            return Ok(Line::Error(status.boxed()));
        }
        _ => {
            let error = Error::new(ErrorKind::InvalidData, "a line of a watch is of an unknown type");
            return Err(kube::Error::ReadEvents(error));
        }
    };
    Ok(Object::parse(frame.object)
        .map_or(Line::Unnamed(change), |object| Line::Object(change, Box::new(object))))
}
