//! The credential and the caller from the headers of a request, whatever they hold.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::callers::Caller;
use super::demand::{Places, decode};
use crate::api::Outcome;
use crate::api::report::{MAX_PRINCIPAL, MAX_USER_AGENT};
use crate::domain::token::Presented;

/// Most bytes of a header's value that may hold a credential.
pub const MAX_VALUE: usize = 512;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a credential stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `Authorization: Bearer`, or `token`, as some clients call it.
    Bearer,
    /// The password of `Authorization: Basic`, or the user where there is none.
    Basic,
    /// The API-key header.
    ApiKey,
    /// A parameter of the client's query.
    Query,
    /// A cookie.
    Cookie,
    /// `Sec-WebSocket-Protocol`.
    WebSocket,
}

/// A credential as it was presented; whether it is a token is for the verdict to say. `Debug` hides it.
pub struct Credential<'a> {
    source: Source,
    text: Text<'a>,
}

enum Text<'a> {
    Plain(&'a str),
    /// Wiped on drop: the request's own buffers hold only the encoded form.
    Decoded(Zeroizing<String>),
}

impl Credential<'_> {
    /// The text, to be judged.
    pub fn as_str(&self) -> &str {
        match &self.text {
            Text::Plain(text) => text,
            Text::Decoded(text) => text,
        }
    }

    /// Where it stood: what must not reach the upstream.
    pub fn source(&self) -> Source {
        self.source
    }
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({:?}, [redacted])", self.source)
    }
}

/// What a protocol offered in `Sec-WebSocket-Protocol` begins with that is a token: browsers let a page set no other header
/// of a WebSocket.
pub const PROTOCOL: &str = "tokenward.bearer.";

/// The one credential in the places that a route reads. `query` is what the client asked with.
pub fn credential<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    query: Option<&'a str>,
    places: Places<'_>,
) -> Result<Credential<'a>, Outcome> {
    let mut one = One::default();
    for (name, value) in headers {
        if places.authorization && name.eq_ignore_ascii_case("authorization") {
            one.found(Stood::Authorization, value)?;
        } else if places.header.is_some_and(|header| name.eq_ignore_ascii_case(header)) {
            one.found(Stood::Plain(Source::ApiKey), value)?;
        } else if let Some(cookie) = places.cookie
            && name.eq_ignore_ascii_case("cookie")
        {
            let pairs = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let own = |pair: &'a [u8]| pair.strip_prefix(cookie.as_bytes())?.strip_prefix(b"=");
            pairs.filter_map(own).try_for_each(|value| one.found(Stood::Plain(Source::Cookie), value))?;
        } else if places.websocket && name.eq_ignore_ascii_case("sec-websocket-protocol") {
            let protocols = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            let own = protocols.filter_map(|protocol| protocol.strip_prefix(PROTOCOL.as_bytes()));
            own.into_iter().try_for_each(|value| one.found(Stood::Plain(Source::WebSocket), value))?;
        }
    }
    if let (Some(wanted), Some(query)) = (places.query, query) {
        // As whoever reads it behind this gate would: also if its name is encoded.
        let own = |pair: &'a str| {
            let (name, value) = pair.split_once('=')?;
            decode(name).is_ok_and(|name| name == wanted).then_some(value)
        };
        let query = query.split('#').next().unwrap_or_default();
        query.split('&').filter_map(own).try_for_each(|value| one.found(Stood::Query, value.as_bytes()))?;
    }
    match one.0 {
        None => Err(Outcome::Missing),
        Some((Stood::Authorization, value)) => from_authorization(value),
        Some((Stood::Plain(source), value)) => Ok(Credential { source, text: Text::Plain(plain(value)?) }),
        Some((Stood::Query, value)) => Ok(Credential { source: Source::Query, text: from_query(value)? }),
    }
}

#[derive(Clone, Copy)]
enum Stood {
    Authorization,
    Plain(Source),
    Query,
}

/// What was found, once. Something empty is as good as nothing: proxies write it for what they do not have.
#[derive(Default)]
struct One<'a>(Option<(Stood, &'a [u8])>);

impl<'a> One<'a> {
    fn found(&mut self, stood: Stood, value: &'a [u8]) -> Result<(), Outcome> {
        if !value.trim_ascii().is_empty() && self.0.replace((stood, value)).is_some() {
            // Fails closed: two ways to say who one is. Which one the upstream would look at is anybody's guess.
            return Err(Outcome::Conflicting);
        }
        Ok(())
    }
}

fn from_authorization(value: &[u8]) -> Result<Credential<'_>, Outcome> {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"token") {
        within(value)?;
        Ok(Credential { source: Source::Bearer, text: Text::Plain(plain(rest)?) })
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        within(value)?;
        Ok(Credential { source: Source::Basic, text: Text::Decoded(from_basic(plain(rest)?)?) })
    } else {
        // Fails closed: another scheme is for somebody else.
        Err(Outcome::Missing)
    }
}

fn from_query(value: &[u8]) -> Result<Text<'_>, Outcome> {
    within(value)?;
    let value = std::str::from_utf8(value).map_err(|_| Outcome::Malformed)?;
    match decode(value).map_err(|_| Outcome::Malformed)? {
        Cow::Borrowed(text) => plain(text.as_bytes()).map(Text::Plain),
        Cow::Owned(text) => {
            let text = Zeroizing::new(text);
            plain(text.as_bytes())?;
            Ok(Text::Decoded(text))
        }
    }
}

fn within(value: &[u8]) -> Result<(), Outcome> {
    // Fails closed: no token is that long.
    if value.len() > MAX_VALUE { Err(Outcome::Malformed) } else { Ok(()) }
}

/// Printable ASCII without the spaces around it.
fn plain(value: &[u8]) -> Result<&str, Outcome> {
    within(value)?;
    let value = value.trim_ascii();
    if value.is_empty() || !value.iter().all(|byte| byte.is_ascii_graphic()) {
        // Fails closed: spaces, control characters, non-ASCII, or nothing at all.
        return Err(Outcome::Malformed);
    }
    std::str::from_utf8(value).map_err(|_| Outcome::Malformed)
}

/// The token in `user:password` in base64: the password, whoever the user says he is, because git and docker insist on one; or
/// the user, where the password is empty or says that it is none.
fn from_basic(encoded: &str) -> Result<Zeroizing<String>, Outcome> {
    let mut decoded = Zeroizing::new(vec![0; MAX_VALUE]);
    let length = BASE64.decode_slice(encoded, &mut decoded).map_err(|_| Outcome::Malformed)?;
    let decoded = &decoded[..length];
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Outcome::Malformed)?;
    let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
    let token = if matches!(password.trim_ascii(), b"" | b"x-oauth-basic") {
        user
    } else if std::str::from_utf8(user.trim_ascii()).is_ok_and(|user| Presented::parse(user).is_ok()) {
        // Fails closed: two tokens.
        return Err(Outcome::Conflicting);
    } else {
        password
    };
    plain(token).map(|token| Zeroizing::new(token.to_owned()))
}

/// Who calls: the address as the proxies saw it, the principal if the proxy vouches for one, and what the client calls itself.
pub fn caller<'a>(address: Option<IpAddr>, principal: &'a str, user_agent: Option<&'a [u8]>) -> Caller<'a> {
    Caller {
        address,
        principal: legible(principal.as_bytes(), MAX_PRINCIPAL),
        user_agent: legible(user_agent.unwrap_or_default(), MAX_USER_AGENT),
    }
}

/// As much from the beginning as is printable ASCII and not too long: it is shown to people.
fn legible(value: &[u8], most: usize) -> &str {
    let printable = |byte: &u8| *byte == b' ' || byte.is_ascii_graphic();
    let value = &value[..value.len().min(most)];
    let end = value.iter().position(|byte| !printable(byte)).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
}

/// The address in `X-Forwarded-For` that can be relied on: the last is what the asking proxy saw; each trusted proxy before
/// it moves one further from the right. With fewer entries than that, the first: a trusted proxy wrote it, too.
pub fn forwarded<'a>(
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted_proxies: usize,
) -> Option<IpAddr> {
    let entries = values.rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    let mut last = None;
    for entry in entries.take(trusted_proxies.saturating_add(1)) {
        last = Some(entry);
    }
    address(std::str::from_utf8(last?).ok()?)
}

/// An address as proxies write it: IPv4 or IPv6, with or without brackets and a port.
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests;
