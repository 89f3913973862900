//! `.env` files, as Compose, Node and Python read them, and `EnvironmentFile=` of systemd, which differs in details.

use zeroize::Zeroizing;

use super::{ImportError, Variable, Variables, fits};

/// By whose rules a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A value may be followed by a comment, and `\n` in double quotes is a line's end.
    Dotenv,
    /// A backslash before a line's end goes on with the next line, and before other characters is left out (systemd.exec(5)).
    Systemd,
}

/// Reads the variables of a file.
///
/// # Errors
///
/// When a line is no variable, or the file too long.
pub fn read(text: &str, style: Style) -> Result<Vec<Variable>, ImportError> {
    fits(text)?;
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
        style,
    };
    let mut found = Variables::default();
    while reader.next(&mut found)? {}
    Ok(found.done())
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
    style: Style,
}

impl Reader<'_> {
    /// Reads a line with what belongs to it; `false` at the end.
    fn next(&mut self, found: &mut Variables) -> Result<bool, ImportError> {
        self.skip_blanks();
        match self.rest.chars().next() {
            None => return Ok(false),
            Some('\n' | '\r') => {
                self.take();
                return Ok(true);
            }
            Some('#') => self.comment(),
            Some(';') if self.style == Style::Systemd => self.comment(),
            Some(_) => self.variable(found)?,
        }
        Ok(true)
    }

    fn variable(&mut self, found: &mut Variables) -> Result<(), ImportError> {
        let line = self.line;
        if self.style == Style::Dotenv
            && let Some(rest) = self.rest.strip_prefix("export")
            && rest.starts_with([' ', '\t'])
        {
            self.rest = rest;
            self.skip_blanks();
        }
        let end = self.rest.find(['=', '\n']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at_checked(end).unwrap_or_default();
        self.rest = rest;
        let name = name.trim();
        if !self.rest.starts_with('=') {
            // Compose and Python take it from their own environment.
            if self.style == Style::Dotenv {
                return found.set(name, None, line);
            }
            return Err(ImportError::new(line, "this is not NAME=VALUE"));
        }
        self.take();
        self.skip_blanks();
        let value = match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            Some('`') if self.style == Style::Dotenv => self.quoted('`')?,
            Some(_) | None => self.bare(),
        };
        found.set(name, Some(&value), line)
    }

    /// Reads to the quote that ends it, over lines.
    fn quoted(&mut self, quote: char) -> Result<Zeroizing<String>, ImportError> {
        let line = self.line;
        self.take();
        let mut value = Zeroizing::new(String::new());
        loop {
            match self.take() {
                None => return Err(ImportError::new(line, "the quote that begins here has no end")),
                Some(end) if end == quote => break,
                Some('\\') if quote == '"' => self.escape(&mut value),
                Some(other) => value.push(other),
            }
        }
        if self.style == Style::Systemd {
            // What stands after it belongs to it.
            value.push_str(&self.bare());
            return Ok(value);
        }
        self.skip_blanks();
        match self.rest.chars().next() {
            None | Some('\n' | '\r') => Ok(value),
            Some('#') => {
                self.comment();
                Ok(value)
            }
            Some(_) => Err(ImportError::new(
                self.line,
                "something follows the quote that ends the value",
            )),
        }
    }

    fn escape(&mut self, value: &mut Zeroizing<String>) {
        match (self.take(), self.style) {
            (Some('\n'), Style::Systemd) | (None, _) => {}
            (Some('n'), Style::Dotenv) => value.push('\n'),
            (Some('r'), Style::Dotenv) => value.push('\r'),
            (Some('t'), Style::Dotenv) => value.push('\t'),
            (Some(other @ ('"' | '\\' | '$' | '`')), _) => value.push(other),
            (Some(other), _) => {
                value.push('\\');
                value.push(other);
            }
        }
    }

    /// Reads to the end of the line, or to a comment.
    fn bare(&mut self) -> Zeroizing<String> {
        let mut value = Zeroizing::new(String::new());
        let mut blank = true;
        loop {
            match self.rest.chars().next() {
                None | Some('\n') => break,
                Some('#') if self.style == Style::Dotenv && blank => {
                    self.comment();
                    break;
                }
                Some('\\') if self.style == Style::Systemd => {
                    self.take();
                    let next = self.take();
                    value.extend(next.filter(|next| *next != '\n'));
                    blank = false;
                }
                Some(other) => {
                    self.take();
                    blank = matches!(other, ' ' | '\t');
                    value.push(other);
                }
            }
        }
        Zeroizing::new(value.trim_end().to_owned())
    }

    /// Skips the rest of the line.
    fn comment(&mut self) {
        while self.rest.chars().next().is_some_and(|next| next != '\n') {
            self.take();
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn take(&mut self) -> Option<char> {
        let mut rest = self.rest.chars();
        let taken = rest.next()?;
        self.rest = rest.as_str();
        if taken == '\n' {
            self.line += 1;
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str, style: Style) -> Vec<(String, Option<String>)> {
        let found = read(text, style).unwrap();
        let pair = |variable: &Variable| {
            (
                variable.name.clone(),
                variable.value.as_ref().map(|value| value.to_string()),
            )
        };
        found.iter().map(pair).collect()
    }

    fn check(style: Style, text: &str, wanted: &[(&str, &str)]) {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
            .collect();
        assert_eq!(pairs(text, style), wanted, "{text:?}");
    }

    #[test]
    fn a_dotenv_file_is_read_as_its_readers_do() {
        for (text, wanted) in [
            ("", &[][..]),
            ("# only\n\n  # this\n", &[]),
            ("A=1\nB = 2 \r\nexport C=3", &[("A", "1"), ("B", "2"), ("C", "3")]),
            ("A=a b # why\nB=a#b\nC=#\n", &[("A", "a b"), ("B", "a#b"), ("C", "")]),
            (r#"A="a \"b\" \\ \$ \n \x"  # why"#, &[("A", "a \"b\" \\ $ \n \\x")]),
            (r"A='a \n # b'", &[("A", r"a \n # b")]),
            ("A=\"one\ntwo\"\nB=3", &[("A", "one\ntwo"), ("B", "3")]),
            ("A=`a \"b'`", &[("A", "a \"b'")]),
            ("A=1\nA=2", &[("A", "2")]),
            ("A=a=b=", &[("A", "a=b=")]),
            ("\u{feff}A=1", &[("A", "1")]),
            ("exported=1", &[("exported", "1")]),
            ("A=", &[("A", "")]),
        ] {
            check(Style::Dotenv, text, wanted);
        }
        assert_eq!(pairs("TOKEN\nA=1", Style::Dotenv)[0], ("TOKEN".to_owned(), None));
    }

    #[test]
    fn an_environment_file_of_systemd_is_read_as_systemd_does() {
        for (text, wanted) in [
            ("A=a # b\n; no\nB=2", &[("A", "a # b"), ("B", "2")][..]),
            ("A=one \\\ntwo\nB=3", &[("A", "one two"), ("B", "3")]),
            (r"A=a\ b\\", &[("A", r"a b\")]),
            (r#"A="a \"b\" \n""#, &[("A", "a \"b\" \\n")]),
            ("A='a'b", &[("A", "ab")]),
        ] {
            check(Style::Systemd, text, wanted);
        }
    }

    #[test]
    fn what_is_no_variable_is_told_by_its_line_and_without_its_value() {
        for (style, text, line) in [
            (Style::Dotenv, "A=1\n2B=s3cret", 2),
            (Style::Dotenv, "A=1\n=s3cret", 2),
            (Style::Dotenv, "A=\"s3cret\n\n", 1),
            (Style::Dotenv, "A='1' s3cret", 1),
            (Style::Dotenv, "A B=s3cret", 1),
            (Style::Systemd, "A=1\n\ns3cret", 3),
        ] {
            let error = read(text, style).unwrap_err();
            assert_eq!(error.line, line, "{text:?}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        let long = format!("A={}", "x".repeat(super::super::VALUE_BYTES_MAX + 1));
        assert!(read(&long, Style::Dotenv).is_err());
        let many: String = (0..=super::super::VARIABLES_MAX)
            .map(|number| format!("A{number}=1\n"))
            .collect();
        assert!(read(&many, Style::Dotenv).is_err());
        let large = "#".repeat(super::super::FILE_BYTES_MAX + 1);
        assert!(read(&large, Style::Dotenv).is_err());
        let name = format!("{}=1", "A".repeat(super::super::NAME_BYTES_MAX + 1));
        assert!(read(&name, Style::Dotenv).is_err());
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back_as_it_was(values in prop::collection::vec("[^\r]{0,40}", 0..10)) {
            let text: String = values
                .iter()
                .enumerate()
                .map(|(number, value)| {
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
                    format!("V{number}=\"{value}\" # x\n")
                })
                .collect();
            let found = read(&text, Style::Dotenv).unwrap();
            let found: Vec<_> = found.iter().map(Variable::text).collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[ -~\n\r\t\u{e9}]{0,200}") {
            for style in [Style::Dotenv, Style::Systemd] {
                let _read: Result<Vec<Variable>, ImportError> = read(&text, style);
            }
        }
    }
}
