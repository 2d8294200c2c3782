//! The credential and the caller from the headers of a request, whatever they hold.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::callers::Caller;
use crate::api::Outcome;
use crate::api::report::{MAX_PRINCIPAL, MAX_USER_AGENT};

/// Most bytes of a header's value that may hold a credential.
pub const MAX_VALUE: usize = 512;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a credential stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `Authorization: Bearer`.
    Bearer,
    /// The password of `Authorization: Basic`.
    Basic,
    /// The API-key header.
    ApiKey,
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

    /// Where it stood: the header that must not reach the upstream.
    pub fn source(&self) -> Source {
        self.source
    }
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({:?}, [redacted])", self.source)
    }
}

/// The one credential in `headers`. `api_key` is the name of the API-key header.
pub fn credential<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    api_key: &str,
) -> Result<Credential<'a>, Outcome> {
    let (mut authorization, mut key) = (None, None);
    for (name, value) in headers {
        let place = if name.eq_ignore_ascii_case("authorization") {
            &mut authorization
        } else if name.eq_ignore_ascii_case(api_key) {
            &mut key
        } else {
            continue;
        };
        if place.replace(value).is_some() {
            // Fails closed: which one the upstream would look at is anybody's guess.
            return Err(Outcome::Conflicting);
        }
    }
    match (authorization, key) {
        (None, None) => Err(Outcome::Missing),
        // Fails closed: two ways to say who one is.
        (Some(_), Some(_)) => Err(Outcome::Conflicting),
        (None, Some(value)) => Ok(Credential { source: Source::ApiKey, text: Text::Plain(plain(value)?) }),
        (Some(value), None) => from_authorization(value),
    }
}

fn from_authorization(value: &[u8]) -> Result<Credential<'_>, Outcome> {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if scheme.eq_ignore_ascii_case(b"bearer") {
        within(value)?;
        Ok(Credential { source: Source::Bearer, text: Text::Plain(plain(rest)?) })
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        within(value)?;
        Ok(Credential { source: Source::Basic, text: Text::Decoded(password(plain(rest)?)?) })
    } else {
        // Fails closed: another scheme is for somebody else.
        Err(Outcome::Missing)
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

/// The password of `user:password` in base64. The user may be anything: git and docker insist on one.
fn password(encoded: &str) -> Result<Zeroizing<String>, Outcome> {
    let mut decoded = Zeroizing::new(vec![0; MAX_VALUE]);
    let length = BASE64.decode_slice(encoded, &mut decoded).map_err(|_| Outcome::Malformed)?;
    let decoded = &decoded[..length];
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Outcome::Malformed)?;
    plain(&decoded[colon + 1..]).map(|password| Zeroizing::new(password.to_owned()))
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
