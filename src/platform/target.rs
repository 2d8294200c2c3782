//! What no request line may lose on its way to a service.
//!
//! RFC 9112, section 3.2, has no fragment in a request target. The parser of `http` cuts one off in silence, and with it the
//! rest of what a route demands: `?scope=a#&scope=b` would demand `a` only. So each `#` becomes an [`INSTEAD`] before anybody
//! parses it.

/// Stands for `#`: no demand, no path of ours and no name of a header holds it, and a target may.
const INSTEAD: u8 = b'@';

/// Where in a head the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first space of a line. A header's name ends in a colon, so that only a request line comes out of it.
    Method { begun: bool },
    /// Between the first and the second space.
    Target,
    /// In what is left of the line.
    Rest,
}

/// Follows the lines that a client sends over HTTP/1.1, however they are cut into pieces. Of a body it takes lines for
/// request lines that look like them; no body that is read here holds such a line.
#[derive(Debug)]
pub struct Targets(At);

impl Default for Targets {
    fn default() -> Self {
        Self(At::Method { begun: false })
    }
}

impl Targets {
    /// Replaces what may not stand in a target, in the next bytes of the stream.
    pub fn mend(&mut self, bytes: &mut [u8]) {
        let mut from = 0;
        if !bytes.contains(&b'#') {
            // Mostly so: only the line that is not complete yet matters for what follows.
            if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
                (self.0, from) = (At::Method { begun: false }, end + 1);
            }
        }
        for byte in &mut bytes[from..] {
            self.0 = match (self.0, *byte) {
                (_, b'\n') => At::Method { begun: false },
                (At::Method { begun: true }, b' ') => At::Target,
                (At::Method { .. }, b'!' | b'#'..=b'\'' | b'*'..=b'+' | b'-'..=b'.' | b'0'..=b'9') => {
                    At::Method { begun: true }
                }
                (At::Method { .. }, b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~') => At::Method { begun: true },
                // Lenient parsers skip what stands before a request line.
                (At::Method { begun: false }, b'\r') => At::Method { begun: false },
                (At::Target, b' ') => At::Rest,
                (At::Target, b'#') => {
                    *byte = INSTEAD;
                    At::Target
                }
                (At::Target, _) => At::Target,
                (At::Method { .. } | At::Rest, _) => At::Rest,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mended(pieces: &[&[u8]]) -> String {
        let mut targets = Targets::default();
        let mut all = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            targets.mend(&mut piece);
            all.extend(piece);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_fragment_is_not_cut_off_but_spoils_what_it_stands_in() {
        for (sent, wanted) in [
            (
                "GET /authz/nginx?scope=a#&scope=b HTTP/1.1\r\n",
                "GET /authz/nginx?scope=a@&scope=b HTTP/1.1\r\n",
            ),
            ("\r\n\nGET /a#b#c HTTP/1.1\r\n\r\n", "\r\n\nGET /a@b@c HTTP/1.1\r\n\r\n"),
            ("M-SEARCH http://x/a#b", "M-SEARCH http://x/a@b"),
            // Pipelined, and with lines that end in a line feed alone.
            ("GET / HTTP/1.1\n\nGET /#x HTTP/1.1\n\n", "GET / HTTP/1.1\n\nGET /@x HTTP/1.1\n\n"),
        ] {
            assert_eq!(mended(&[sent.as_bytes()]), wanted);
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for sent in [
            "GET / HTTP/1.1\r\nX-Color: #fff #000\r\nCookie:a=#b\r\n c #d\r\n\r\n",
            "GET / HTTP/1.1 #x\r\n\r\n",
            "POST /introspect HTTP/1.1\r\n\r\ntoken=a#b",
        ] {
            assert_eq!(mended(&[sent.as_bytes()]), sent);
        }
    }

    proptest! {
        /// However a head arrives, its target has no `#` and nothing is lost.
        #[test]
        fn pieces_do_not_matter(target in "/[#?&=a-z]{0,30}", cuts in prop::collection::vec(0_usize..80, 0..5)) {
            let head = format!("GET {target} HTTP/1.1\r\nA: #\r\n\r\n");
            let head = format!("{head}{head}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(head.len())).collect();
            cuts.extend([0, head.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &head.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(mended(&pieces), head.replace(&target, &target.replace('#', "@")));
        }
    }
}
