//! Reads a template from left to right and writes what it comes to.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::Names;
use super::fault::{Fault, quoted};
use super::page::{Filter, Page};

/// A fault and the byte of the template where it is.
type Located<T> = Result<T, (usize, Fault)>;

/// A parenthesis that is open.
struct Open {
    /// Where it stands in the template.
    at: usize,
    /// Where its value begins on the page.
    begin: usize,
}

pub struct Reader<'s, 'n, 'w> {
    source: &'s str,
    /// The byte that is read next.
    at: usize,
    names: &'n Names<'n>,
    page: Page<'w>,
}

impl<'s, 'n, 'w> Reader<'s, 'n, 'w> {
    pub fn new(source: &'s str, names: &'n Names<'n>, page: Page<'w>) -> Self {
        Self { source, at: 0, names, page }
    }

    pub fn read(mut self) -> Located<Zeroizing<String>> {
        self.page.work.read(self.source.len());
        if let Some(at) = self
            .source
            .match_indices('{')
            .map(|(at, _)| at)
            .find(|at| matches!(self.source.as_bytes().get(at + 1), Some(b'%' | b'#')))
        {
            return Err((at, Fault::Statement));
        }
        let mut trim = false;
        while let Some(length) = self.rest().find("{{") {
            let begin = self.at + length;
            let takes_space = self.source[begin..].starts_with("{{-");
            let mut text = &self.source[self.at..begin];
            if trim {
                text = text.trim_start();
            }
            if takes_space {
                text = text.trim_end();
            }
            self.write(text)?;
            self.at = begin + if takes_space { 3 } else { 2 };
            trim = self.expression(begin)?;
        }
        let text = self.rest();
        self.write(if trim { text.trim_start() } else { text })?;
        Ok(self.page.into_text())
    }

    /// Reads what follows a `{{` and the `}}` after it, and says whether the white space that follows goes.
    fn expression(&mut self, begin: usize) -> Located<bool> {
        // Else whatever text follows would be blamed.
        if !self.rest().contains("}}") {
            return Err((begin, Fault::OpenExpression));
        }
        let mut open: Vec<Open> = Vec::new();
        loop {
            // A part has to come.
            self.skip_space();
            let at = self.at;
            let mut value = self.page.end();
            match self.next() {
                None => return Err((begin, Fault::OpenExpression)),
                Some('(') => {
                    self.at += 1;
                    open.push(Open { at, begin: value });
                    continue;
                }
                Some(quote @ ('\'' | '"')) => {
                    let text = self.literal(quote)?;
                    self.write(&text)?;
                }
                Some(first) if begins_word(first) => self.name()?,
                Some('.') => return Err((at, self.dotted())),
                Some('}' | ')' | '~' | '|') => return Err((at, Fault::Missing)),
                Some(other) => return Err((at, Fault::Unexpected(other))),
            }
            // Then what is done with it, until another part has to come.
            loop {
                self.skip_space();
                let at = self.at;
                if self.rest().starts_with("}}") || self.rest().starts_with("-}}") {
                    if let Some(open) = open.pop() {
                        return Err((open.at, Fault::OpenParenthesis));
                    }
                    let takes_space = self.next() == Some('-');
                    self.at += if takes_space { 3 } else { 2 };
                    return Ok(takes_space);
                }
                match self.next() {
                    None => return Err((begin, Fault::OpenExpression)),
                    Some('~') => {
                        self.at += 1;
                        break;
                    }
                    Some('|') => {
                        self.at += 1;
                        let filter = self.filter()?;
                        self.page.filter(value, &filter).map_err(|fault| (at, fault))?;
                    }
                    Some(')') => {
                        self.at += 1;
                        value = open.pop().ok_or((at, Fault::ClosedTwice))?.begin;
                    }
                    Some('\'' | '"') => {
                        return Err((at, Fault::Beside("a text in quotes".to_owned())));
                    }
                    Some(first) if begins_word(first) => {
                        return Err((at, Fault::Beside(quoted(self.word()))));
                    }
                    Some(other) => return Err((at, Fault::Unexpected(other))),
                }
            }
        }
    }

    fn name(&mut self) -> Located<()> {
        let at = self.at;
        let word = self.word();
        let Some(value) = self.names.get(word) else {
            return Err((at, Fault::UnknownName(quoted(word))));
        };
        match self.next() {
            Some('.') => Err((at, Fault::Path(quoted(self.path(at))))),
            Some('(') => Err((at, Fault::Call(quoted(word)))),
            _ => self.write(value),
        }
    }

    /// What is wrong with a dot where a part should begin.
    fn dotted(&mut self) -> Fault {
        let begin = self.at;
        let path = self.path(begin);
        match path.strip_prefix('.') {
            Some(name) if self.names.get(name).is_some() => Fault::LeadingDot(name.to_owned()),
            _ => Fault::Path(quoted(path)),
        }
    }

    /// Words and dots from `begin` on.
    fn path(&self, begin: usize) -> &'s str {
        let rest = &self.source[begin..];
        let end = rest.find(|part: char| part != '.' && !in_word(part)).unwrap_or(rest.len());
        &rest[..end]
    }

    /// Reads what follows a bar.
    fn filter(&mut self) -> Located<Filter> {
        self.skip_space();
        let at = self.at;
        if !self.next().is_some_and(begins_word) {
            return Err((at, Fault::NoFilter));
        }
        let (filter, name) = match self.word() {
            "replace" => return self.replace(),
            "b64encode" => (Filter::Base64, "b64encode"),
            "lower" => (Filter::Lower, "lower"),
            "trim" => (Filter::Trim, "trim"),
            "upper" => (Filter::Upper, "upper"),
            other => return Err((at, Fault::UnknownFilter(quoted(other)))),
        };
        if self.next() == Some('(') { Err((self.at, Fault::NoArguments(name))) } else { Ok(filter) }
    }

    fn replace(&mut self) -> Located<Filter> {
        self.punctuation('(')?;
        let old = self.argument()?;
        self.punctuation(',')?;
        let new = self.argument()?;
        self.punctuation(')')?;
        Ok(Filter::Replace(old.into_owned(), new.into_owned()))
    }

    fn argument(&mut self) -> Located<Cow<'s, str>> {
        self.skip_space();
        match self.next() {
            Some(quote @ ('\'' | '"')) => self.literal(quote),
            _ => Err((self.at, Fault::Replace)),
        }
    }

    fn punctuation(&mut self, wanted: char) -> Located<()> {
        self.skip_space();
        if self.next() != Some(wanted) {
            return Err((self.at, Fault::Replace));
        }
        self.at += wanted.len_utf8();
        Ok(())
    }

    /// Reads a text in quotes.
    fn literal(&mut self, quote: char) -> Located<Cow<'s, str>> {
        let begin = self.at;
        self.at += quote.len_utf8();
        let mut text = Cow::Borrowed("");
        loop {
            let length = self.rest().find([quote, '\\']).ok_or((begin, Fault::OpenText(quote)))?;
            text += &self.rest()[..length];
            self.at += length;
            let at = self.at;
            if self.next() == Some(quote) {
                self.at += quote.len_utf8();
                return Ok(text);
            }
            self.at += 1;
            text.to_mut().push(match self.next() {
                None => return Err((begin, Fault::OpenText(quote))),
                Some(itself @ ('\\' | '\'' | '"')) => itself,
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(_) => return Err((at, Fault::Escape)),
            });
            self.at += 1;
        }
    }

    /// Reads a word.
    fn word(&mut self) -> &'s str {
        let rest = self.rest();
        let end = rest.find(|part| !in_word(part)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn write(&mut self, text: &str) -> Located<()> {
        self.page.write(text).map_err(|fault| (self.at, fault))
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }
}

fn begins_word(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

fn in_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}
