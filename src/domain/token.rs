//! The token format: `<prefix>_<id>_<secret><crc>`.
//!
//! | part | length | alphabet | secret |
//! |---|---|---|---|
//! | prefix | 1–20 | `[a-z][a-z0-9]*(_[a-z0-9]+)*` | no |
//! | id | 10 | base62 | no: it names the credential everywhere |
//! | secret | 43 (256 bits) | base62 | yes |
//! | crc | 6 | base62 | no: CRC-32/IEEE of all before it, most significant digit first, left-padded with `0` |
//!
//! The checksum covers the prefix too, as GitLab's and Grafana's do, so that a token with a swapped prefix is rejected
//! before any lookup. At 256 bits an unsalted SHA-256 may be published (NIST SP 800-63B, look-up secrets of at least
//! 112 bits).

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::ports::{Entropy, EntropyError};

/// Digits of base62 in ascending order.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of the credential id.
pub const ID_LEN: usize = 10;
/// Characters of the secret part: 62^43 > 2^256.
pub const SECRET_LEN: usize = 43;
/// Characters of the checksum: 62^6 > 2^32.
pub const CRC_LEN: usize = 6;
/// Most characters of a prefix.
pub const MAX_PREFIX_LEN: usize = 20;
/// Most characters of a token.
pub const MAX_LEN: usize = MAX_PREFIX_LEN + 1 + ID_LEN + 1 + SECRET_LEN + CRC_LEN;
/// What follows the prefix: two underscores and three parts of fixed length.
const TAIL_LEN: usize = 1 + ID_LEN + 1 + SECRET_LEN + CRC_LEN;

/// An installation's token prefix, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

/// A prefix that cannot begin a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "token prefix {found:?} is not valid: write 1 to {MAX_PREFIX_LEN} lower-case letters and digits, starting with a \
     letter, parts joined by single underscores, such as `twd` or `acme_live`"
)]
pub struct PrefixError {
    found: String,
}

impl Prefix {
    /// Checks `text` against `[a-z][a-z0-9]*(_[a-z0-9]+)*`, at most 20 characters.
    pub fn new(text: &str) -> Result<Self, PrefixError> {
        if is_prefix(text) { Ok(Self(text.to_owned())) } else { Err(PrefixError { found: text.to_owned() }) }
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::new(text)
    }
}

fn is_prefix(text: &str) -> bool {
    text.len() <= MAX_PREFIX_LEN
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.split('_').all(|part| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

/// A whole token in plaintext. Wiped on drop; `Debug` shows the id only.
///
/// The only ways to the plaintext are [`Token::expose`] and the Secret that it is rendered into.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// Why a text is not a token. Never carries the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Wrong length, alphabet or separators.
    #[error("not of the form <prefix>_<id>_<secret><crc>")]
    Malformed,
    /// The form fits, the checksum does not: a typo, a truncation or a look-alike.
    #[error("the checksum does not fit")]
    Checksum,
}

impl Token {
    /// Mints a token: id and secret are drawn from `entropy` by rejection sampling, so no character is likelier.
    pub fn mint(prefix: &Prefix, entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        // Reserved in full: a buffer that grew would leave unwiped copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_LEN));
        text.push_str(prefix.as_str());
        text.push('_');
        push_random(&mut text, ID_LEN, entropy)?;
        text.push('_');
        push_random(&mut text, SECRET_LEN, entropy)?;
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.iter().map(|&digit| char::from(digit)));
        Ok(Self(text))
    }

    /// Reads a token from the right, where the parts have fixed lengths, and checks form and checksum.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        check(text)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// A token of the right shape that no gate accepts, as long as any can be: to try out what cannot be done twice.
    pub fn placeholder() -> Self {
        let prefix = "p".repeat(MAX_PREFIX_LEN);
        Self(Zeroizing::new(format!("{prefix}_{}_{}", "0".repeat(ID_LEN), "0".repeat(SECRET_LEN + CRC_LEN))))
    }

    /// The credential id: not secret.
    pub fn id(&self) -> &str {
        let end = self.0.len() - (1 + SECRET_LEN + CRC_LEN);
        &self.0[end - ID_LEN..end]
    }

    /// The prefix it was minted with.
    pub fn prefix(&self) -> &str {
        &self.0[..self.0.len() - TAIL_LEN]
    }

    /// `sha256:<hex>` of the whole token: may stand in status.
    pub fn digest(&self) -> String {
        digest_of(self.0.as_bytes())
    }

    /// The plaintext. For the Secret and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}_{}_[redacted])", self.prefix(), self.id())
    }
}

/// A credential id: ten base62 characters, held as a number below 62^10 (60 bits). Not secret. Ordered as its text is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId(u64);

impl CredentialId {
    /// Reads ten base62 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: &[u8; ID_LEN] = text.as_bytes().try_into().ok()?;
        digits.iter().try_fold(0, |value, digit| Some(value * 62 + u64::from(value_of(*digit)?))).map(Self)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'Z' => Some(digit - b'A' + 10),
        b'a'..=b'z' => Some(digit - b'a' + 36),
        _ => None,
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut digits) = (self.0, [b'0'; ID_LEN]);
        for digit in digits.iter_mut().rev() {
            *digit = ALPHABET[(rest % 62) as usize];
            rest /= 62;
        }
        digits.iter().try_for_each(|digit| f.write_char(char::from(*digit)))
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialId({self})")
    }
}

/// A token as somebody presents it: form and checksum hold, nothing is copied. `Debug` shows the id only.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    text: &'a str,
    id: CredentialId,
}

impl<'a> Presented<'a> {
    /// Checks form and checksum.
    pub fn parse(text: &'a str) -> Result<Self, ParseError> {
        check(text)?;
        let id = Self::id_of(text).ok_or(ParseError::Malformed)?;
        Ok(Self { text, id })
    }

    /// The id of `text` if it is a token, before anything else of it is checked.
    pub fn id_of(text: &str) -> Option<CredentialId> {
        let end = text.len().checked_sub(1 + SECRET_LEN + CRC_LEN)?;
        CredentialId::parse(text.get(end.checked_sub(ID_LEN)?..end)?)
    }

    /// The credential id.
    pub fn id(&self) -> CredentialId {
        self.id
    }

    /// The prefix it was minted with.
    pub fn prefix(&self) -> &'a str {
        &self.text[..self.text.len() - TAIL_LEN]
    }

    /// SHA-256 of the whole token.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({}_{}_[redacted])", self.prefix(), self.id)
    }
}

/// The bytes of a digest as status holds it: `sha256:` and 64 lower-case hex digits.
pub fn digest_bytes(text: &str) -> Option<[u8; 32]> {
    let hex: &[u8; 64] = text.strip_prefix("sha256:")?.as_bytes().try_into().ok()?;
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Checks form and checksum without keeping a copy.
pub fn check(text: &str) -> Result<(), ParseError> {
    let prefix_len = text.len().checked_sub(TAIL_LEN).ok_or(ParseError::Malformed)?;
    let bytes = text.as_bytes();
    let second_separator = prefix_len + 1 + ID_LEN;
    let well_formed = text.is_ascii()
        && is_prefix(&text[..prefix_len])
        && bytes[prefix_len] == b'_'
        && bytes[second_separator] == b'_'
        && bytes[prefix_len + 1..second_separator].iter().all(u8::is_ascii_alphanumeric)
        && bytes[second_separator + 1..].iter().all(u8::is_ascii_alphanumeric);
    if !well_formed {
        return Err(ParseError::Malformed);
    }
    let (body, crc) = bytes.split_at(bytes.len() - CRC_LEN);
    if checksum(body) == crc { Ok(()) } else { Err(ParseError::Checksum) }
}

/// `sha256:<hex>` of any bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity("sha256:".len() + 64);
    text.push_str("sha256:");
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn checksum(body: &[u8]) -> [u8; CRC_LEN] {
    let mut rest = crc32fast::hash(body);
    let mut digits = [b'0'; CRC_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

fn push_random(text: &mut String, count: usize, entropy: &dyn Entropy) -> Result<(), EntropyError> {
    // Six bits name 64 values: the two beyond the alphabet are drawn again rather than folded (no modulo bias).
    let mut missing = count;
    while missing > 0 {
        let mut bytes = Zeroizing::new([0_u8; 64]);
        entropy.fill(bytes.as_mut_slice())?;
        let digits = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 0x3f)));
        for &digit in digits.take(missing) {
            text.push(char::from(digit));
            missing -= 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of a counter: predictable, and every value appears.
    struct Counter;
    impl Entropy for Counter {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
            bytes.iter_mut().zip(0_u8..).for_each(|(byte, value)| *byte = value);
            Ok(())
        }
    }

    struct Broken;
    impl Entropy for Broken {
        fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
            Err(EntropyError("gone".into()))
        }
    }

    fn minted(prefix: &str) -> Token {
        Token::mint(&Prefix::new(prefix).unwrap(), &Counter).unwrap()
    }

    #[test]
    fn checksum_agrees_with_published_vectors() {
        // The npm example token whose checksum is known, and the extremes.
        assert_eq!(&checksum(b"qkJaB6MffYVzZXWqmcoF49yrUxP3wf"), b"0LsakP");
        assert_eq!(&checksum(&[b'0'; 30]), b"2C8GjS");
        assert_eq!(&checksum(b"abcdefghijklmnopqrstuvwxyz0123"), b"2LolCm");
    }

    #[test]
    fn golden_token() {
        let token = minted("acme_live");
        assert_eq!(
            token.expose(),
            "acme_live_0123456789_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg".to_owned()
                + &token.expose()[token.expose().len() - CRC_LEN..]
        );
        assert_eq!(token.prefix(), "acme_live");
        assert_eq!(token.id(), "0123456789");
        assert_eq!(token.expose().len(), "acme_live".len() + TAIL_LEN);
        assert!(token.digest().starts_with("sha256:") && token.digest().len() == 71);
    }

    /// The blocks of a recorded generator, one after the other.
    struct Recorded(std::sync::Mutex<Vec<u8>>);
    impl Entropy for Recorded {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
            let mut left = self.0.lock().unwrap();
            let rest = left.split_off(bytes.len());
            bytes.copy_from_slice(&std::mem::replace(&mut *left, rest));
            Ok(())
        }
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        tokens: Vec<GoldenToken>,
        rejected: Vec<Rejected>,
    }

    #[derive(serde::Deserialize)]
    struct GoldenToken {
        prefix: String,
        bytes: String,
        id: String,
        token: String,
        digest: String,
    }

    #[derive(serde::Deserialize)]
    struct Rejected {
        name: String,
        text: String,
        why: String,
    }

    /// Written by another implementation, for others still.
    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/tokens.json")).unwrap()
    }

    #[test]
    fn golden_tokens_are_minted_and_read() {
        for golden in golden().tokens {
            let bytes = (0..golden.bytes.len()).step_by(2);
            let bytes = bytes.map(|at| u8::from_str_radix(&golden.bytes[at..at + 2], 16).unwrap());
            let entropy = Recorded(std::sync::Mutex::new(bytes.collect()));
            let minted = Token::mint(&Prefix::new(&golden.prefix).unwrap(), &entropy).unwrap();
            assert_eq!(minted.expose(), golden.token);
            assert!(entropy.0.lock().unwrap().is_empty(), "no more is drawn than is needed");
            let read = Token::parse(&golden.token).unwrap();
            assert_eq!((read.prefix(), read.id()), (golden.prefix.as_str(), golden.id.as_str()));
            let presented = Presented::parse(&golden.token).unwrap();
            assert_eq!(
                (presented.prefix(), presented.id().to_string()),
                (golden.prefix.as_str(), golden.id.clone())
            );
            assert_eq!(Some(presented.digest()), digest_bytes(&golden.digest));
            assert!(!format!("{presented:?}").contains(&golden.token[golden.token.len() - 20..]));
            assert_eq!(read.digest(), golden.digest);
        }
    }

    #[test]
    fn golden_rejects_are_rejected() {
        for golden in golden().rejected {
            let why = match golden.why.as_str() {
                "checksum" => ParseError::Checksum,
                "malformed" => ParseError::Malformed,
                other => panic!("{other}"),
            };
            assert_eq!(check(&golden.text), Err(why), "{}", golden.name);
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = minted("twd");
        assert_eq!(format!("{token:?}"), "Token(twd_0123456789_[redacted])");
    }

    #[test]
    fn a_failing_generator_mints_nothing() {
        assert!(Token::mint(&Prefix::new("twd").unwrap(), &Broken).is_err());
    }

    #[test]
    fn prefixes() {
        for good in ["t", "twd", "acme_live", "a1_2", "abcdefghijklmnopqrst"] {
            assert!(Prefix::new(good).is_ok(), "{good}");
        }
        for bad in ["", "_", "1a", "A", "a__b", "_a", "a_", "a-b", "abcdefghijklmnopqrstu", "ä"] {
            assert!(Prefix::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parse_reads_what_mint_wrote(prefix in "[a-z][a-z0-9]{0,7}(_[a-z0-9]{1,5}){0,2}", seed in any::<u64>()) {
            struct Seeded(std::sync::Mutex<u64>);
            impl Entropy for Seeded {
                fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
                    let mut state = self.0.lock().unwrap();
                    for byte in bytes {
                        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        *byte = (*state >> 33) as u8;
                    }
                    Ok(())
                }
            }
            let token = Token::mint(&Prefix::new(&prefix).unwrap(), &Seeded(seed.into())).unwrap();
            let again = Token::parse(token.expose()).unwrap();
            prop_assert_eq!(again.prefix(), prefix);
            prop_assert_eq!(again.digest(), token.digest());
            prop_assert!(token.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        }

        #[test]
        fn any_single_change_is_rejected(position in 0_usize..MAX_LEN, replacement in "[0-9a-zA-Z_]") {
            let token = minted("twd");
            let mut text = token.expose().to_owned();
            let position = position % text.len();
            prop_assume!(text[position..=position] != replacement);
            text.replace_range(position..=position, &replacement);
            prop_assert!(check(&text).is_err());
        }

        #[test]
        fn garbage_never_panics(text in ".{0,120}") {
            let _ = check(&text);
        }
    }
}
