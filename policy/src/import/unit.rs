//! Units of systemd: what `Environment=` and its like say (systemd.exec(5), systemd.syntax(7)).

use std::str::Chars;

use zeroize::Zeroizing;

use super::{ImportError, Variable, Variables, fits};

/// The most files that a unit names.
const FILES_MAX: usize = 64;

/// What a unit says of its service's environment.
#[derive(Debug, Default)]
pub struct Unit {
    /// What it sets, and what it passes on without a value.
    pub variables: Vec<Variable>,
    /// What it reads, in its order; these win over what it sets.
    pub files: Vec<EnvironmentFile>,
    /// What it takes away after all that.
    pub unset: Vec<String>,
}

/// A file that a unit reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentFile {
    /// Its path.
    pub path: String,
    /// Whether it may be missing.
    pub optional: bool,
}

/// Reads a unit with its drop-ins, in the order in which systemd reads them.
///
/// # Errors
///
/// With the number of the text, when a line of `[Service]` is none.
pub fn read<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Unit, (usize, ImportError)> {
    let mut reading = Reading::default();
    for (number, text) in texts.into_iter().enumerate() {
        fits(text)
            .and_then(|()| reading.text(text))
            .map_err(|error| (number, error))?;
    }
    Ok(Unit {
        variables: reading.variables.done(),
        files: reading.files,
        unset: reading.unset,
    })
}

#[derive(Default)]
struct Reading {
    variables: Variables,
    files: Vec<EnvironmentFile>,
    unset: Vec<String>,
}

impl Reading {
    fn text(&mut self, text: &str) -> Result<(), ImportError> {
        let mut in_service = false;
        for (line, said) in lines(text) {
            let said = said.trim();
            if let Some(section) = said.strip_prefix('[') {
                in_service = section == "Service]";
            } else if in_service && let Some((key, value)) = said.split_once('=') {
                self.key(key.trim_end(), value.trim_start(), line)?;
            }
        }
        Ok(())
    }

    fn key(&mut self, key: &str, value: &str, line: usize) -> Result<(), ImportError> {
        match key {
            "Environment" if value.is_empty() => self.variables.clear(),
            "Environment" => {
                for word in words(value, line)? {
                    let (name, value) = word
                        .split_once('=')
                        .ok_or_else(|| ImportError::new(line, "`Environment=` has words NAME=VALUE"))?;
                    self.variables.set(name, Some(&plain(value)), line)?;
                }
            }
            "PassEnvironment" => {
                // What the unit itself sets wins.
                for word in words(value, line)? {
                    if !self.variables.has(&word) {
                        self.variables.set(&word, None, line)?;
                    }
                }
            }
            "UnsetEnvironment" if value.is_empty() => self.unset.clear(),
            "UnsetEnvironment" => {
                for word in words(value, line)? {
                    self.unset.push(word.to_string());
                }
            }
            "EnvironmentFile" if value.is_empty() => self.files.clear(),
            "EnvironmentFile" => {
                if self.files.len() == FILES_MAX {
                    return Err(ImportError::new(line, format!("there are more than {FILES_MAX} files")));
                }
                let (path, optional) = value.strip_prefix('-').map_or((value, false), |path| (path, true));
                let path = plain(path).to_string();
                self.files.push(EnvironmentFile { path, optional });
            }
            _ => {}
        }
        Ok(())
    }
}

/// Puts lines that end in a backslash together with the next, without the comments between them.
fn lines(text: &str) -> Vec<(usize, Zeroizing<String>)> {
    let mut lines: Vec<(usize, Zeroizing<String>)> = Vec::new();
    let mut going_on = false;
    for (number, line) in text.lines().enumerate() {
        let begins = line.trim_start();
        if begins.starts_with(['#', ';']) {
            continue;
        }
        let (line, goes_on) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        match lines.last_mut() {
            Some((_, last)) if going_on => {
                last.push(' ');
                last.push_str(line);
            }
            Some(_) | None => lines.push((number + 1, Zeroizing::new(line.to_owned()))),
        }
        going_on = goes_on;
    }
    lines
}

/// Splits a value at blanks that are in no quotes, and reads what a backslash means.
fn words(value: &str, line: usize) -> Result<Vec<Zeroizing<String>>, ImportError> {
    let (mut words, mut word, mut quote): (_, Option<Zeroizing<String>>, _) = (Vec::new(), None, None);
    let mut rest = value.chars();
    while let Some(next) = rest.next() {
        match (next, quote) {
            (end, Some(begun)) if end == begun => quote = None,
            ('"' | '\'', None) => {
                quote = Some(next);
                word.get_or_insert_default();
            }
            (' ' | '\t', None) => words.extend(word.take()),
            ('\\', _) => {
                let escaped =
                    escape(&mut rest).ok_or_else(|| ImportError::new(line, "a backslash means nothing here"))?;
                word.get_or_insert_default().push(escaped);
            }
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    if quote.is_some() {
        return Err(ImportError::new(line, "a quote has no end"));
    }
    words.extend(word);
    Ok(words)
}

/// systemd.syntax(7), "Supported escapes".
fn escape(rest: &mut Chars<'_>) -> Option<char> {
    if rest.clone().next()?.is_digit(8) {
        return coded(rest, 3, 8);
    }
    Some(match rest.next()? {
        'x' => return coded(rest, 2, 16),
        'u' => return coded(rest, 4, 16),
        'U' => return coded(rest, 8, 16),
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        's' => ' ',
        itself @ ('\\' | '"' | '\'') => itself,
        _ => return None,
    })
}

fn coded(rest: &mut Chars<'_>, digits: usize, radix: u32) -> Option<char> {
    let mut code = 0;
    for _ in 0..digits {
        code = code * radix + rest.next()?.to_digit(radix)?;
    }
    char::from_u32(code).filter(|found| *found != '\0')
}

/// A percent sign is written twice; what stands for something else is left as it is.
fn plain(value: &str) -> Zeroizing<String> {
    Zeroizing::new(value.replace("%%", "%"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(unit: &Unit) -> Vec<(&str, &str)> {
        let variables = unit.variables.iter();
        variables
            .map(|variable| (variable.name.as_str(), variable.text()))
            .collect()
    }

    #[test]
    fn a_unit_with_a_drop_in_is_read_as_systemd_does() {
        let unit = "[Unit]\nEnvironment=NOT=this\n[Service]\nEnvironment=\"A=one two\" B=2 'C=it''s'\n# no\n\
            Environment=D=a\\x20b E=100%%\nExecStart=/bin/x \\\n# between\n Environment=NOT=that\n\
            EnvironmentFile=/etc/a.env\nEnvironmentFile=-/etc/b.env\nPassEnvironment=TOKEN OTHER\n\
            UnsetEnvironment=B\n[Install]\nWantedBy=multi-user.target\n";
        let read = read([unit, "[Service]\nEnvironment=B=3\\tx\n"]).unwrap();
        assert_eq!(
            pairs(&read),
            [
                ("A", "one two"),
                ("C", "its"),
                ("D", "a b"),
                ("E", "100%"),
                ("TOKEN", ""),
                ("OTHER", ""),
                ("B", "3\tx")
            ]
        );
        let file = |path: &str, optional| EnvironmentFile {
            path: path.to_owned(),
            optional,
        };
        assert_eq!(read.files, [file("/etc/a.env", false), file("/etc/b.env", true)]);
        assert_eq!(read.unset, ["B"]);
    }

    #[test]
    fn an_empty_setting_takes_back_what_stood_before() {
        let unit = "[Service]\nEnvironment=A=1\nEnvironmentFile=/a\nUnsetEnvironment=X\n";
        let read = read([
            unit,
            "[Service]\nEnvironment=\nEnvironment=B=2\nEnvironmentFile=\nUnsetEnvironment=\n",
        ])
        .unwrap();
        assert_eq!(pairs(&read), [("B", "2")]);
        assert!(read.files.is_empty() && read.unset.is_empty());
    }

    #[test]
    fn what_a_unit_sets_wins_over_what_it_passes_on() {
        let unit = read(["[Service]\nEnvironment=A=1\nPassEnvironment=A B\nEnvironment=B=2\n"]).unwrap();
        assert_eq!(pairs(&unit), [("A", "1"), ("B", "2")]);
    }

    #[test]
    fn what_systemd_would_not_take_is_told_by_its_line_and_without_its_value() {
        for said in [
            "Environment=s3cret",
            "Environment=\"A=s3cret",
            "Environment=A=s3cret\\q",
            "Environment=A=\\x0",
            "Environment=A=\\000",
            "Environment=1A=s3cret",
        ] {
            let (text, error) = read(["[Service]\n", &format!("[Service]\n\n{said}\n")]).unwrap_err();
            assert_eq!((text, error.line), (1, 3), "{said}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        let many = format!("[Service]\n{}", "EnvironmentFile=/x\n".repeat(FILES_MAX + 1));
        assert!(read([many.as_str()]).is_err());
        assert!(read([" ".repeat(super::super::FILE_BYTES_MAX + 1).as_str()]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back_as_it_was(values in prop::collection::vec("[^\r\n\0]{0,40}", 0..10)) {
            let text: String = values
                .iter()
                .enumerate()
                .map(|(number, value)| {
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
                    format!("Environment=\"V{number}={value}\"\n")
                })
                .collect();
            let unit = read([format!("[Service]\n{text}").as_str()]).unwrap();
            let found: Vec<_> = unit.variables.iter().map(Variable::text).collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[ -~\n\t\u{e9}]{0,200}") {
            drop(read([format!("[Service]\nEnvironment={text}").as_str(), &text]));
        }
    }
}
