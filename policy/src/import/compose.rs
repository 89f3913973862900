//! Compose files: what `environment` and `env_file` of a service say.
//!
//! Anchors, merge keys and tags are not read, as in mesh files: `docker compose config` writes a file without them.

use super::{ImportError, Variable, Variables, fits};
use crate::source::{Source, Sources};
use crate::yaml::{self, Node, Value};

/// The most files that a service names.
const FILES_MAX: usize = 64;

/// What a service says of its environment.
#[derive(Debug, Default)]
pub struct Service {
    /// Its name in the file.
    pub name: String,
    /// What it sets, which wins over the files.
    pub variables: Vec<Variable>,
    /// What it reads, in its order.
    pub files: Vec<EnvFile>,
}

/// A file that a service reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFile {
    /// Its path, from the folder of the compose file.
    pub path: String,
    /// Whether it may be missing.
    pub optional: bool,
}

/// Reads one service: the one of that name, or the only one.
///
/// # Errors
///
/// When the file is none, or there is no such service, or there are several and none is named.
pub fn read(text: &str, service: Option<&str>) -> Result<Service, ImportError> {
    fits(text)?;
    let reading = Reading {
        lines: Sources::new(&[Source {
            name: String::new(),
            text: text.to_owned(),
        }]),
    };
    let root = yaml::parse(0, text).map_err(|draft| reading.unread(&draft))?;
    let services = reading.of(&root, "services")?;
    let services = services.ok_or_else(|| ImportError::new(1, "the file has no `services`"))?;
    let (name, body) = reading.choose(services, service)?;
    let mut found = Service {
        name: name.to_owned(),
        ..Service::default()
    };
    let mut variables = Variables::default();
    if let Some(node) = reading.of(body, "environment")? {
        reading.environment(node, &mut variables)?;
    }
    if let Some(node) = reading.of(body, "env_file")? {
        reading.files(node, &mut found.files)?;
    }
    found.variables = variables.done();
    Ok(found)
}

struct Reading {
    lines: Sources,
}

impl Reading {
    /// Says where the file could not be read, without the text that stands there.
    fn unread(&self, draft: &crate::diagnostics::Draft) -> ImportError {
        let what = if draft.code() == crate::code::SYNTAX {
            "this is not YAML"
        } else {
            "anchors, tags, several documents and deep nests are not read: import what `docker compose config` writes"
        };
        let line = draft.span().map_or(1, |span| self.lines.place(span).line);
        ImportError::new(line, what)
    }

    fn error(&self, node: &Node, what: impl Into<String>) -> ImportError {
        ImportError::new(self.lines.place(node.span).line, what)
    }

    fn map<'n>(&self, node: &'n Node) -> Result<&'n [(Node, Node)], ImportError> {
        if let Value::Map(entries) = &node.value {
            return Ok(entries);
        }
        let what = format!("a map is expected here, and not {}", node.value.kind());
        Err(self.error(node, what))
    }

    /// Gives the value of a key; one that says nothing is none.
    fn of<'n>(&self, node: &'n Node, key: &str) -> Result<Option<&'n Node>, ImportError> {
        let mut found = self.map(node)?.iter().filter(|(name, _)| text(name) == Some(key));
        let value = found.next().map(|(_, value)| value);
        if let Some((again, _)) = found.next() {
            return Err(self.error(again, format!("`{key}` is here twice")));
        }
        Ok(value.filter(|value| value.value != Value::Null))
    }

    fn choose<'n>(&self, services: &'n Node, wanted: Option<&str>) -> Result<(&'n str, &'n Node), ImportError> {
        let all = self.map(services)?;
        let named: Vec<_> = all
            .iter()
            .filter_map(|(name, body)| Some((text(name)?, body)))
            .collect();
        let found = match (wanted, named.as_slice()) {
            (Some(wanted), named) => named.iter().find(|(name, _)| *name == wanted),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        found.copied().ok_or_else(|| {
            let names: Vec<_> = named.iter().map(|(name, _)| *name).take(20).collect();
            self.error(
                services,
                format!("name one of the services by --service: {}", names.join(", ")),
            )
        })
    }

    /// A map, or a list of `NAME=VALUE` and `NAME`.
    fn environment(&self, node: &Node, variables: &mut Variables) -> Result<(), ImportError> {
        let line = |node: &Node| self.lines.place(node.span).line;
        if let Value::List(items) = &node.value {
            for item in items {
                let said = text(item).ok_or_else(|| self.error(item, "`environment` has items NAME=VALUE"))?;
                let (name, value) = said
                    .split_once('=')
                    .map_or((said, None), |(name, value)| (name, Some(value)));
                let value = value.map(plain);
                variables.set(name, value.as_ref().map(|value| value.as_str()), line(item))?;
            }
            return Ok(());
        }
        for (name, value) in self.map(node)? {
            let named = text(name).ok_or_else(|| self.error(name, "a variable's name is text"))?;
            let said = match &value.value {
                Value::Text(text) => Some(plain(text)),
                Value::Bool(_) | Value::Integer(_) | Value::Float | Value::Null => None,
                Value::List(_) | Value::Map(_) => return Err(self.error(value, "a variable's value is text")),
            };
            variables.set(named, said.as_ref().map(|said| said.as_str()), line(name))?;
        }
        Ok(())
    }

    /// A path, or a list of paths and of maps with `path` and `required`.
    fn files(&self, node: &Node, files: &mut Vec<EnvFile>) -> Result<(), ImportError> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float | Value::Text(_) | Value::Map(_) => {
                std::slice::from_ref(node)
            }
        };
        for item in items {
            if files.len() == FILES_MAX {
                return Err(self.error(item, format!("there are more than {FILES_MAX} files")));
            }
            let wrong = || self.error(item, "`env_file` has paths");
            let (path, optional) = match &item.value {
                Value::Text(path) => (path.as_str(), false),
                Value::Map(_) => {
                    let required = self.of(item, "required")?.map(|node| &node.value);
                    let path = self.of(item, "path")?.and_then(text).ok_or_else(wrong)?;
                    (path, required == Some(&Value::Bool(false)))
                }
                Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float | Value::List(_) => return Err(wrong()),
            };
            files.push(EnvFile {
                path: path.to_owned(),
                optional,
            });
        }
        Ok(())
    }
}

fn text(node: &Node) -> Option<&str> {
    let Value::Text(text) = &node.value else {
        return None;
    };
    Some(text)
}

/// A dollar is written twice; what stands for something else is left as it is.
fn plain(value: &str) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(value.replace("$$", "$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(service: &Service) -> Vec<(&str, Option<&str>, usize)> {
        let variables = service.variables.iter();
        let value = |variable: &Variable| variable.value.as_ref().map(|value| value.as_str().to_owned());
        let all = variables.map(|variable| (variable.name.as_str(), value(variable), variable.line));
        all.map(|(name, value, line)| (name, value.map(|value| &*value.leak()), line))
            .collect()
    }

    const FILE: &str = "services:
  web:
    image: web
    environment:
      TOKEN: s3cret
      PRICE: a$$b
      DEBUG: true
      PORT: 8080
      FROM_SHELL:
    env_file:
      - web.env
      - {path: more.env, required: false}
  worker:
    environment: [A=1=2, B, 'C=']
    env_file: worker.env
  idle: {image: idle}
";

    #[test]
    fn a_service_is_read_in_both_forms() {
        let web = read(FILE, Some("web")).unwrap();
        assert_eq!(
            pairs(&web),
            [
                ("TOKEN", Some("s3cret"), 5),
                ("PRICE", Some("a$b"), 6),
                ("DEBUG", None, 7),
                ("PORT", None, 8),
                ("FROM_SHELL", None, 9)
            ]
        );
        let file = |path: &str, optional| EnvFile {
            path: path.to_owned(),
            optional,
        };
        assert_eq!(web.files, [file("web.env", false), file("more.env", true)]);
        let worker = read(FILE, Some("worker")).unwrap();
        assert_eq!(
            pairs(&worker),
            [("A", Some("1=2"), 14), ("B", None, 14), ("C", Some(""), 14)]
        );
        assert_eq!(worker.files, [file("worker.env", false)]);
        assert!(read(FILE, Some("idle")).unwrap().variables.is_empty());
        assert_eq!(
            read("services: {only: {environment: {A: b}}}", None).unwrap().name,
            "only"
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_line_and_without_its_value() {
        for (text, line, told) in [
            ("a: b", 1, "no `services`"),
            (
                "services:\n  a: {environment: {X: [s3cret]}}",
                2,
                "a variable's value is text",
            ),
            ("services:\n  a: {environment: {1: s3cret}}", 2, "name is text"),
            ("services:\n  a: {environment: s3cret}", 2, "a map is expected"),
            ("services:\n  a: {environment: [{X: s3cret}]}", 2, "items NAME=VALUE"),
            (
                "services:\n  a: {environment: [1X=s3cret]}",
                2,
                "does not begin with a digit",
            ),
            ("services:\n  a: {env_file: [{required: false}]}", 2, "has paths"),
            ("services:\n  a: {env_file: 7}", 2, "has paths"),
            ("services:\n  a: 1", 2, "a map is expected"),
            ("services:\n  a: {}\nservices: {}", 3, "here twice"),
            (
                "services:\n  a: {environment: {X: &s3cret s3cret}}",
                2,
                "docker compose config",
            ),
            ("services:\n  a: {environment: {X: \"s3cret}}", 2, "this is not YAML"),
        ] {
            let error = read(text, Some("a")).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(told), "{text:?}: {said}");
            assert!(!said.contains("s3cret"), "{said}");
            assert!(error.line == line || told.contains("YAML"), "{text:?}: {said}");
        }
        let several = read(FILE, None).unwrap_err().to_string();
        assert!(several.contains("--service: web, worker, idle"), "{several}");
        assert!(read(FILE, Some("other")).is_err());
        let files = vec!["x"; FILES_MAX + 1].join(", ");
        assert!(read(&format!("services: {{a: {{env_file: [{files}]}}}}"), None).is_err());
    }
}
