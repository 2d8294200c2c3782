//! What a route demands of a token. It comes from the proxy's configuration, never from what the client sends: from the
//! query of the gate's own URL, or from Envoy's `context_extensions`.
//!
//! What cannot be understood denies as `Misrouted`: a demand that was overlooked would let everybody through.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::record::is_word;
use crate::api::Outcome;

/// The header that holds an API key where the route names no other.
pub const DEFAULT_HEADER: &str = "x-api-key";
/// Most scopes, and most audiences, that a route may demand.
pub const MAX_WORDS: usize = 64;
/// Where Envoy's HTTP dialect is served.
pub const ENVOY_PATH: &str = "/authz/envoy";

/// What a demand is made of.
const KEYS: [&str; 7] = ["audience", "scope", "header", "challenge", "source", "query", "cookie"];
/// The query parameter that holds a token where the route names no other (RFC 6750, section 2.3).
const DEFAULT_QUERY: &str = "access_token";
/// The cookie likewise.
const DEFAULT_COOKIE: &str = "access_token";

type Words<'a> = SmallVec<[Cow<'a, str>; 2]>;

/// What a route demands, and where it reads a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand<'a> {
    audiences: Words<'a>,
    scopes: Words<'a>,
    sources: Sources,
    header: Option<Cow<'a, str>>,
    query: Option<Cow<'a, str>>,
    cookie: Option<Cow<'a, str>>,
    basic: bool,
}

/// Those that a route names with `source`, in the order of [`SOURCES`]; none means the usual two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sources([bool; SOURCES.len()]);

const SOURCES: [&str; 5] = ["authorization", "header", "query", "cookie", "websocket"];
/// Their places in it.
const AUTHORIZATION: usize = 0;
const HEADER: usize = 1;
const QUERY: usize = 2;
const COOKIE: usize = 3;
const WEBSOCKET: usize = 4;

impl Sources {
    fn names(self, source: usize) -> bool {
        self.0[source]
    }

    fn are_usual(self) -> bool {
        self == Self::default()
    }
}

/// Where a credential may stand; in all these places together there has to be exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places<'a> {
    /// `Authorization`.
    pub authorization: bool,
    /// The API-key header, by its name.
    pub header: Option<&'a str>,
    /// A parameter of the query that the client asked with. It stands in logs and histories.
    pub query: Option<&'a str>,
    /// A cookie. Browsers send it with the requests of other sites, too.
    pub cookie: Option<&'a str>,
    /// `Sec-WebSocket-Protocol`, as one of the protocols offered.
    pub websocket: bool,
}

impl<'a> Places<'a> {
    /// `Authorization` and an API-key header.
    pub fn usual(header: &'a str) -> Self {
        Self { authorization: true, header: Some(header), query: None, cookie: None, websocket: false }
    }
}

impl<'a> Demand<'a> {
    /// Nothing but a valid token.
    pub fn none() -> Self {
        Self::default()
    }

    /// One scope.
    pub fn scope(scope: &'a str) -> Self {
        Self { scopes: std::iter::once(Cow::Borrowed(scope)).collect(), ..Self::default() }
    }

    /// From the gate's own URL. Without a query there is no demand.
    pub fn from_url(query: Option<&'a str>) -> Result<Self, Outcome> {
        match query {
            None => Ok(Self::default()),
            // Fails closed: what was to stand there is lost, such as the value of a proxy's variable.
            Some("") => Err(Outcome::Misrouted),
            Some(query) => Self::from_query(query),
        }
    }

    /// From the query of the gate's own URL, without its question mark. `Misrouted` if it cannot be understood.
    pub fn from_query(query: &'a str) -> Result<Self, Outcome> {
        let mut demand = Self::default();
        if query.is_empty() {
            return Ok(demand);
        }
        for pair in query.split('&') {
            // Fails closed: a key without a value demands nothing that can be checked, and a pair that is empty may have
            // been one.
            let (key, value) = pair.split_once('=').ok_or(Outcome::Misrouted)?;
            demand.add(&decode(key)?, decode(value)?)?;
        }
        demand.consistent()
    }

    /// From the URL of Envoy's HTTP dialect. Envoy appends the client's path and query to its `path_prefix`, so the demand
    /// ends where the first key `path` begins:
    ///
    /// | Envoy's configuration | demand |
    /// |---|---|
    /// | `path_prefix: /authz/envoy?audience=orders&path=` | before `path=` |
    /// | `path_prefix: /authz/envoy/audience=orders&path=` | the same, where no `?` may stand (Gateway API) |
    /// | `path_prefix: /authz/envoy` | nothing |
    /// | `path_override: /authz/envoy?audience=orders` | all of it: the client's path is not sent |
    ///
    /// A client's path begins with a slash, so a prefix whose `path=` was forgotten demands a word that no token has, or as a
    /// path is `Misrouted`; and whatever a client writes into its path can add to a demand, never take from it.
    pub fn from_envoy(path: &'a str, query: Option<&'a str>) -> Result<Self, Outcome> {
        // Fails closed: a path that only begins alike is not ours.
        let below = path.strip_prefix(ENVOY_PATH).ok_or(Outcome::Misrouted)?;
        let Some(below) = below.strip_prefix('/') else {
            // Fails closed: as above.
            if !below.is_empty() {
                return Err(Outcome::Misrouted);
            }
            return match query.and_then(before_path) {
                Some(pairs) => Self::from_query(pairs),
                None => Self::from_url(query),
            };
        };
        let segment = below.split('/').next().unwrap_or_default();
        let Some(pairs) = before_path(segment) else {
            // Fails closed: a demand that ends nowhere. Below a bare prefix it is the client's, who harms himself only.
            let demands =
                segment.split('&').any(|pair| pair.split_once('=').is_some_and(|(key, _)| is_key(key)));
            return if demands { Err(Outcome::Misrouted) } else { Ok(Self::default()) };
        };
        let demand = Self::from_query(pairs)?;
        // Fails closed: below a bare prefix this is the client's, who is not to choose which header is spent.
        if demand.places() == Places::usual(DEFAULT_HEADER) { Ok(demand) } else { Err(Outcome::Misrouted) }
    }

    /// The query that the client asked with, from the URL of Envoy's HTTP dialect.
    pub fn clients_query(query: Option<&str>) -> Option<&str> {
        let query = query?;
        let client = query.get(before_path(query)?.len()..)?;
        client.split_once('?').map(|(_, own)| own)
    }

    /// From Envoy's `context_extensions`. `audience` and `scope` may hold several words, separated by spaces.
    pub fn from_extensions(
        extensions: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Outcome> {
        let mut demand = Self::default();
        for (key, value) in extensions {
            match key {
                "audience" | "scope" => {
                    let mut words = value.split(' ').filter(|word| !word.is_empty()).peekable();
                    // Fails closed: an empty demand is a mistake, not "everybody".
                    words.peek().ok_or(Outcome::Misrouted)?;
                    words.try_for_each(|word| demand.add(key, Cow::Borrowed(word)))?;
                }
                _ => demand.add(key, Cow::Borrowed(value))?,
            }
        }
        demand.consistent()
    }

    /// Which key of a query cannot be understood, in our own words: a client may have written the query.
    pub fn misfit_in_query(query: &str) -> &'static str {
        let fits = |pair: &&str| {
            let (key, value) = pair.split_once('=').ok_or(Outcome::Misrouted)?;
            Demand::default().add(&decode(key)?, decode(value)?)
        };
        let bad = query.split('&').find(|pair| fits(pair).is_err());
        named(bad.and_then(|pair| pair.split('=').next()))
    }

    /// Which of Envoy's `context_extensions` cannot be understood.
    pub fn misfit_in_extensions<'b>(
        extensions: impl IntoIterator<Item = (&'b str, &'b str)>,
    ) -> &'static str {
        let mut extensions = extensions.into_iter();
        let words = |key: &str, value: &str| matches!(key, "audience" | "scope") && value.contains(' ');
        let bad = extensions.find(|(key, value)| match words(key, value) {
            true => Demand::from_extensions([(*key, *value)]).is_err(),
            false => Demand::default().add(key, Cow::Borrowed(value)).is_err(),
        });
        named(bad.map(|(key, _)| key))
    }

    fn add(&mut self, key: &str, value: Cow<'a, str>) -> Result<(), Outcome> {
        match key {
            "audience" if is_word(&value) && self.audiences.len() < MAX_WORDS => self.audiences.push(value),
            "scope" if is_word(&value) && self.scopes.len() < MAX_WORDS => self.scopes.push(value),
            "header" if self.header.is_none() && is_header(&value) => self.header = Some(value),
            "query" if self.query.is_none() && is_parameter(&value) => self.query = Some(value),
            "cookie" if self.cookie.is_none() && is_parameter(&value) => self.cookie = Some(value),
            "source" => {
                let source = SOURCES.iter().position(|source| *source == value).ok_or(Outcome::Misrouted)?;
                // Fails closed: said twice, one of them was to be something else.
                if std::mem::replace(&mut self.sources.0[source], true) {
                    return Err(Outcome::Misrouted);
                }
            }
            "challenge" if value == "basic" => self.basic = true,
            // Fails closed: an unknown key, an empty value or a word that no token can have.
            _ => return Err(Outcome::Misrouted),
        }
        Ok(())
    }

    fn consistent(self) -> Result<Self, Outcome> {
        let places = self.places();
        let named = [
            (self.header.is_some(), places.header.is_some()),
            (self.query.is_some(), places.query.is_some()),
            (self.cookie.is_some(), places.cookie.is_some()),
            (self.basic, places.authorization),
        ];
        // Fails closed: a name for a place that is not read is a mistake.
        if named.iter().any(|(named, read)| *named && !read) { Err(Outcome::Misrouted) } else { Ok(self) }
    }

    /// Where a credential may stand. Without a `source`: in `Authorization` or in the API-key header.
    pub fn places(&self) -> Places<'_> {
        let (sources, usual) = (self.sources, self.sources.are_usual());
        Places {
            authorization: usual || sources.names(AUTHORIZATION),
            header: (usual || sources.names(HEADER)).then(|| self.header()),
            query: sources.names(QUERY).then(|| self.query.as_deref().unwrap_or(DEFAULT_QUERY)),
            cookie: sources.names(COOKIE).then(|| self.cookie.as_deref().unwrap_or(DEFAULT_COOKIE)),
            websocket: sources.names(WEBSOCKET),
        }
    }

    /// The audiences that the token must be for, all of them.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        self.audiences.iter().map(AsRef::as_ref)
    }

    /// The scopes that the token must have, all of them.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(AsRef::as_ref)
    }

    /// The header that may hold an API key, in the route's own case.
    pub fn header(&self) -> &str {
        self.header.as_deref().unwrap_or(DEFAULT_HEADER)
    }

    /// Whether to offer Basic authentication to clients that come without a credential, for git and docker.
    pub fn offers_basic(&self) -> bool {
        self.basic
    }
}

/// A key that does not fit, if it is one of those there are. `None`: each fits by itself.
fn named(key: Option<&str>) -> &'static str {
    let Some(key) = key else { return "more than a demand can hold" };
    match KEYS.into_iter().find(|known| *known == key) {
        Some(known) => known,
        None if key.is_empty() => "an empty key",
        None => "an unknown key",
    }
}

fn is_key(key: &str) -> bool {
    KEYS.contains(&key)
}

/// The pairs before the first key `path`, if there is one.
fn before_path(pairs: &str) -> Option<&str> {
    let mut begin = 0_usize;
    for pair in pairs.split('&') {
        if pair.starts_with("path=") {
            return Some(&pairs[..begin.saturating_sub(1)]);
        }
        begin += pair.len() + 1;
    }
    None
}

/// A header name that may hold an API key: not one that is something else here.
fn is_header(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let starts_with =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|own| own.eq_ignore_ascii_case(prefix));
    (1..=64).contains(&name.len())
        && name.bytes().all(token)
        && !OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other))
        && !starts_with("x-tokenward-")
        && !starts_with("x-forwarded-")
}

/// Headers that mean something else here or to proxies.
const OTHERS: [&str; 8] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "sec-websocket-protocol",
    "transfer-encoding",
    "x-original-uri",
];

/// The name of a parameter of a query, or of a cookie, that nobody has to encode.
fn is_parameter(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// Percent-decodes; `+` is a space. Allocates only where something is encoded.
pub(super) fn decode(text: &str) -> Result<Cow<'_, str>, Outcome> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (bytes, mut decoded) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'%' => {
                // Fails closed: half an encoding can be read in two ways.
                let high = digit(bytes.get(at + 1)).ok_or(Outcome::Misrouted)?;
                let low = digit(bytes.get(at + 2)).ok_or(Outcome::Misrouted)?;
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            b'+' => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Outcome::Misrouted)
}

#[cfg(test)]
mod tests;
