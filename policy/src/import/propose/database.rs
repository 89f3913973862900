//! PostgreSQL: an address with a password, or the variables of libpq.

use zeroize::Zeroizing;

use super::super::Variable;
use super::Work;
use super::url::Url;
use crate::database::Database;
use crate::outside::Outside;

/// Names of variables that together are an address: host, port, user, password, database.
const PARTS: [[&str; 5]; 2] = [
    ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"],
    [
        "POSTGRES_HOST",
        "POSTGRES_PORT",
        "POSTGRES_USER",
        "POSTGRES_PASSWORD",
        "POSTGRES_DB",
    ],
];

/// Where a bot logs in, and as whom.
#[derive(Debug, PartialEq, Eq)]
struct Login {
    to: Outside,
    user: Database,
    database: Database,
    password: Option<Zeroizing<String>>,
}

impl<'v> Work<'v> {
    pub(super) fn databases(&mut self) {
        let names: Vec<_> = self.variables.keys().copied().collect();
        for name in names {
            let Some(variable) = self.of(name) else { continue };
            let Some(url) = Url::read(variable.text()) else {
                continue;
            };
            if !matches!(url.scheme.split('+').next(), Some("postgres" | "postgresql")) {
                continue;
            }
            match of_url(&url) {
                Ok(Some(login)) => self.log_in_by_url(variable, &url, login),
                Ok(None) => {}
                Err(why) => self.leave(name, why),
            }
        }
        for parts in &PARTS {
            self.log_in_by_parts(parts);
        }
    }

    fn log_in_by_url(&mut self, variable: &'v Variable, url: &Url<'_>, login: Login) {
        let database = login.database.clone();
        match self.log_in(variable, login) {
            Ok(port) => self.becomes(
                variable,
                Some(format!("{}://bot@127.0.0.1:{port}/{database}", url.scheme)),
            ),
            Err(why) => self.leave(&variable.name, why),
        }
    }

    fn log_in_by_parts(&mut self, parts: &[&str; 5]) {
        let [host, port, user, password, database] = parts.map(|name| self.of(name));
        let Some(password) = password else { return };
        let text = |variable: Option<&'v Variable>| variable.map(Variable::text).filter(|text| !text.is_empty());
        let (Some(at), Some(name)) = (text(host), text(user)) else {
            let why = "the password of a database, of which host and user are not here";
            return self.leave(&password.name, why);
        };
        let authority = match text(port) {
            Some(port) => format!("{at}:{port}"),
            None => at.to_owned(),
        };
        let login = login(&authority, name, text(database).unwrap_or(name), password.value.clone());
        match login.and_then(|login| self.log_in(password, login)) {
            Err(why) => self.leave(&password.name, why),
            Ok(listens) => {
                for (name, set, value) in [
                    (parts[0], host, "127.0.0.1".to_owned()),
                    (parts[1], port, listens.to_string()),
                ] {
                    match set {
                        Some(variable) => self.becomes(variable, Some(value)),
                        None => self.sets(name, value),
                    }
                }
                self.becomes(password, None);
            }
        }
    }

    /// Proposes a login, or takes the one that is the same, and gives the port of its listener.
    fn log_in(&mut self, from: &'v Variable, login: Login) -> Result<u16, &'static str> {
        let Login {
            to,
            user,
            database,
            password,
        } = login;
        let how = format!("postgres: {{user: {:?}}}", user.as_str());
        let calls = vec![database.to_string()];
        let known = self.proposal.leads.iter().find(|leads| leads.to == to);
        if let Some(inject) = known.and_then(|leads| leads.inject.clone()) {
            let same = self.proposal.added.iter_mut().find(|added| added.name == inject);
            let same = same.filter(|added| added.how == how && added.value == password);
            let added = same.ok_or("another login at the same server: which of them a rule gives is yours to say")?;
            added.variables.push(from.name.clone());
            return Ok(self.lead(to, calls, Some(inject)));
        }
        let name = self.add("database", how, &[from], password);
        Ok(self.lead(to, calls, Some(name)))
    }
}

/// Reads what an address says of a login; nothing where no password is in it.
fn of_url(url: &Url<'_>) -> Result<Option<Login>, &'static str> {
    let Some((user, Some(password))) = url.user else {
        return Ok(None);
    };
    let unread = "its user or password is not percent-encoded UTF-8";
    let user = decoded(user).ok_or(unread)?;
    let password = decoded(password).ok_or(unread)?;
    let database = url.path.trim_start_matches('/');
    let database = if database.is_empty() { user.as_str() } else { database };
    login(url.authority, &user, database, Some(password)).map(Some)
}

fn login(
    authority: &str,
    user: &str,
    database: &str,
    password: Option<Zeroizing<String>>,
) -> Result<Login, &'static str> {
    let authority = authority.to_ascii_lowercase();
    let authority = authority.strip_suffix(":5432").unwrap_or(&authority);
    let to = Outside::parse(&format!("postgres://{authority}"));
    let to = to.map_err(
        |_other| "a database of which the host is no DNS name, or more than one: a rule names one like db.example.com",
    )?;
    let user = Database::parse(user)
        .ok_or("the user of the database is not 1 to 63 letters, digits, `_`, `-`, `.` and `$`")?;
    let database =
        Database::parse(database).ok_or("the database is not 1 to 63 letters, digits, `_`, `-`, `.` and `$`")?;
    Ok(Login {
        to,
        user,
        database,
        password,
    })
}

/// RFC 3986 §2.1.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let code = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(code).ok()?);
    }
    String::from_utf8(bytes.to_vec()).ok().map(Zeroizing::new)
}
