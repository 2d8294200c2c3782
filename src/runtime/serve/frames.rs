//! How many frames a client of HTTP/2 may send that are no requests.
//!
//! Each PING, SETTINGS, WINDOW_UPDATE, PRIORITY or unknown frame costs the server work and its sender next to nothing (CVE-2019-9511
//! and its kin), and a connection that sends nothing else keeps a core busy. So they are counted against a budget, which time
//! and requests refill. RFC 9113, section 10.5, asks for the like.

use tokio::time::Instant;

/// What every connection over HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header: length (3), type, flags, stream (4).
const HEADER: usize = 9;

/// Frames at once, such as after a pause.
const MOST: f64 = 200.0;
/// Frames a second without requests. Keep-alive needs less than one.
const PER_SECOND: f64 = 20.0;
/// Frames that come with each request: clients that measure the line send a PING or two for each round trip, and some answer
/// each response with WINDOW_UPDATE, for the stream and for the connection.
const PER_REQUEST: f64 = 8.0;
/// A piece of a body below this many bytes is counted, too, unless it is the last.
const CRUMB: u32 = 16;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Follows the frames of one connection, however they are cut into pieces.
#[derive(Debug)]
pub struct Frames {
    at: At,
    left: f64,
    since: Option<Instant>,
    /// Requests that were not cancelled yet: each may be, at no cost, also all at once.
    open: u32,
}

#[derive(Debug)]
enum At {
    /// So many bytes of the preface have come.
    Preface(usize),
    /// So many bytes of a frame's header.
    Header(usize, [u8; HEADER]),
    /// So many bytes of a frame are to come.
    Payload(u32),
    /// Not HTTP/2.
    Other,
}

impl Default for Frames {
    fn default() -> Self {
        Self { at: At::Preface(0), left: MOST, since: None, open: 0 }
    }
}

impl Frames {
    /// Takes the next bytes of the stream; false when there were too many frames.
    pub fn take(&mut self, mut bytes: &[u8]) -> bool {
        if !bytes.is_empty() && !matches!(self.at, At::Other) {
            self.refill();
        }
        while let Some(first) = bytes.first() {
            match &mut self.at {
                At::Other => return true,
                At::Preface(come) => {
                    if PREFACE.get(*come) != Some(first) {
                        self.at = At::Other;
                        return true;
                    }
                    *come += 1;
                    if *come == PREFACE.len() {
                        self.at = At::Header(0, [0; HEADER]);
                    }
                    bytes = &bytes[1..];
                }
                At::Header(come, header) => {
                    let taken = bytes.len().min(HEADER - *come);
                    header[*come..*come + taken].copy_from_slice(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    *come += taken;
                    if *come == HEADER {
                        let [a, b, c, kind, flags, ..] = *header;
                        let length = u32::from_be_bytes([0, a, b, c]);
                        self.at = At::Payload(length);
                        if !self.count(length, kind, flags) {
                            return false;
                        }
                    }
                }
                At::Payload(rest) => {
                    let taken = bytes.len().min(*rest as usize);
                    bytes = &bytes[taken..];
                    *rest -= taken as u32;
                }
            }
            if matches!(self.at, At::Payload(0)) {
                self.at = At::Header(0, [0; HEADER]);
            }
        }
        true
    }

    fn refill(&mut self) {
        let now = Instant::now();
        let since = self.since.replace(now).map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        self.left = (self.left + since * PER_SECOND).min(MOST);
    }

    fn count(&mut self, length: u32, kind: u8, flags: u8) -> bool {
        match kind {
            HEADERS => {
                self.open = self.open.saturating_add(1);
                self.left = (self.left + PER_REQUEST).min(MOST);
                return true;
            }
            DATA if length >= CRUMB || flags & END_STREAM != 0 => return true,
            RST_STREAM if self.open > 0 => {
                self.open -= 1;
                return true;
            }
            _ => {}
        }
        self.left -= 1.0;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, length: u32) -> Vec<u8> {
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(HEADER + length as usize, 0);
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::default();
        assert!(frames.take(PREFACE));
        frames
    }

    /// How many of these go through at once.
    fn at_once(frames: &mut Frames, frame: &[u8]) -> usize {
        (0..5_000).take_while(|_| frames.take(frame)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_are_no_requests_run_out() {
        // PRIORITY, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, one that nobody knows, and bodies in crumbs.
        for (kind, length) in [(2, 5), (4, 6), (6, 8), (8, 4), (9, 0), (0xbe, 0), (DATA, 0), (DATA, 1)] {
            let flood = frame(kind, 0, length);
            let mut frames = begun();
            assert_eq!(at_once(&mut frames, &flood), MOST as usize, "type {kind}");
            let mut frames = begun();
            for _ in 0..600 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(frames.take(&flood), "ten a second are nobody's flood: type {kind}");
            }
        }
        assert_eq!(at_once(&mut begun(), &frame(RST_STREAM, 0, 4)), MOST as usize, "of no stream");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_with_all_that_belongs_to_them_go_on() {
        let mut frames = begun();
        let request = [frame(HEADERS, 4, 120), frame(DATA, 0, 700), frame(DATA, END_STREAM, 0)].concat();
        let around = [frame(6, 0, 8), frame(6, 1, 8), frame(8, 0, 4), frame(8, 0, 4)].concat();
        for _ in 0..5_000 {
            assert!(frames.take(&request) && frames.take(&around));
        }
        // All that is under way is cancelled at once.
        for _ in 0..1_024 {
            assert!(frames.take(&request));
        }
        for _ in 0..1_024 {
            assert!(frames.take(&frame(RST_STREAM, 0, 4)));
        }
        // A request does not pay for a flood behind it.
        assert!(at_once(&mut frames, &frame(6, 0, 8)) <= MOST as usize);
    }

    #[test]
    fn what_is_not_http2_is_let_be() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"P"] {
            let mut frames = Frames::default();
            for _ in 0..5_000 {
                assert!(frames.take(bytes));
            }
        }
    }

    proptest! {
        /// However the bytes arrive, the same frame is one too many.
        #[test]
        fn pieces_do_not_matter(sizes in prop::collection::vec(1_usize..40, 1..20), length in 0_u32..20) {
            let stream = [PREFACE.to_vec(), frame(6, 0, length).repeat(MOST as usize + 50)].concat();
            let (mut frames, mut rest, mut read) = (Frames::default(), &stream[..], 0);
            for size in sizes.iter().cycle() {
                let piece = &rest[..rest.len().min(*size)];
                read += piece.len();
                rest = &rest[piece.len()..];
                if !frames.take(piece) {
                    break;
                }
                prop_assert!(!rest.is_empty(), "never cut off");
            }
            // The header of the first that is too many, and less than a piece more.
            let limit = PREFACE.len() + (HEADER + length as usize) * (MOST as usize) + HEADER;
            prop_assert!((limit..limit + 40).contains(&read), "{read}, {limit}");
        }
    }
}
