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

type Words<'a> = SmallVec<[Cow<'a, str>; 2]>;

/// What a route demands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand<'a> {
    audiences: Words<'a>,
    scopes: Words<'a>,
    header: Option<Cow<'a, str>>,
    basic: bool,
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

    /// From the query of the gate's own URL, without its question mark. `Misrouted` if it cannot be understood.
    pub fn from_query(query: &'a str) -> Result<Self, Outcome> {
        let mut demand = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // Fails closed: a key without a value demands nothing that can be checked.
            let (key, value) = pair.split_once('=').ok_or(Outcome::Misrouted)?;
            demand.add(&decode(key)?, decode(value)?)?;
        }
        Ok(demand)
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
    /// A client's path begins with a slash, so a prefix whose `path=` was forgotten demands a word that no token has; and
    /// whatever a client writes into its path can add to a demand, never take from it.
    pub fn from_envoy(path: &'a str, query: Option<&'a str>) -> Result<Self, Outcome> {
        // Fails closed: a path that only begins alike is not ours.
        let below = path.strip_prefix(ENVOY_PATH).ok_or(Outcome::Misrouted)?;
        let Some(below) = below.strip_prefix('/') else {
            // Fails closed: as above.
            if !below.is_empty() {
                return Err(Outcome::Misrouted);
            }
            let query = query.unwrap_or_default();
            return Self::from_query(before_path(query).unwrap_or(query));
        };
        let segment = below.split('/').next().unwrap_or_default();
        let Some(pairs) = before_path(segment) else { return Ok(Self::default()) };
        let demand = Self::from_query(pairs)?;
        match demand.header {
            // Fails closed: below a bare prefix this is the client's, who is not to choose which header is spent.
            Some(_) => Err(Outcome::Misrouted),
            None => Ok(demand),
        }
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
        Ok(demand)
    }

    /// Which key of a query cannot be understood, in our own words: a client may have written the query.
    pub fn misfit_in_query(query: &str) -> &'static str {
        let bad = query.split('&').find(|pair| Demand::from_query(pair).is_err());
        named(bad.and_then(|pair| pair.split('=').next()))
    }

    /// Which of Envoy's `context_extensions` cannot be understood.
    pub fn misfit_in_extensions<'b>(
        extensions: impl IntoIterator<Item = (&'b str, &'b str)>,
    ) -> &'static str {
        let mut extensions = extensions.into_iter();
        let bad = extensions.find(|(key, value)| Demand::from_extensions([(*key, *value)]).is_err());
        named(bad.map(|(key, _)| key))
    }

    fn add(&mut self, key: &str, value: Cow<'a, str>) -> Result<(), Outcome> {
        match key {
            "audience" if is_word(&value) && self.audiences.len() < MAX_WORDS => self.audiences.push(value),
            "scope" if is_word(&value) && self.scopes.len() < MAX_WORDS => self.scopes.push(value),
            "header" if self.header.is_none() && is_header(&value) => self.header = Some(value),
            "challenge" if value == "basic" => self.basic = true,
            // Fails closed: an unknown key, an empty value or a word that no token can have.
            _ => return Err(Outcome::Misrouted),
        }
        Ok(())
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
    let known = ["audience", "scope", "header", "challenge"].into_iter().find(|known| *known == key);
    known.unwrap_or("an unknown key")
}

/// The pairs before the first key `path`, if there is one.
fn before_path(pairs: &str) -> Option<&str> {
    let mut begin = 0;
    for pair in pairs.split('&') {
        if pair.starts_with("path=") {
            return Some(&pairs[..begin]);
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
        && !name.eq_ignore_ascii_case("authorization")
        && !starts_with("x-tokenward-")
        && !starts_with("x-forwarded-")
}

/// Percent-decodes; `+` is a space. Allocates only where something is encoded.
fn decode(text: &str) -> Result<Cow<'_, str>, Outcome> {
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
