//! Which server: what a connection string says, and what is added to it.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::base::error::{Error, Result};

/// Options of connection strings whose names may be shown: of others, a slip of the pen may have made a password the
/// name.
const OPTIONS: [&str; 28] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "service",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
    "gssencmode",
];

/// A server, and how to reach it. Shows itself without password and options.
#[derive(Clone)]
pub(super) struct Target(pub(super) Config);

impl Target {
    /// Reads a connection string: a URL or pairs of names and values.
    pub(super) fn parse(text: &str) -> Result<Self> {
        text.parse().map(Self::new).map_err(|error: tokio_postgres::Error| {
            // Its words may quote the string, so only the option's name is taken over.
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let named = OPTIONS.iter().find(|option| cause.contains(&format!("`{option}`")));
            let reason = match named {
                Some(option) if cause.starts_with("unknown") => {
                    format!("it has the option {option}, which is not known")
                }
                Some(option) => format!("its option {option} has a value that cannot be"),
                None => {
                    "it is neither a URL, postgres://user:password@host:port/database, nor pairs of names and values"
                        .to_owned()
                }
            };
            Error::invalid_argument(format!("the connection string cannot be read: {reason}"))
        })
    }

    /// Takes a configuration over; what it leaves open is set so that a server which has vanished is noticed.
    pub(super) fn new(mut config: Config) -> Self {
        if config.get_application_name().is_none() {
            config.application_name("ractor-persistence");
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(30));
        }
        // Two hours is what the system does if nothing is said.
        if config.get_keepalives() && config.get_keepalives_idle() == Duration::from_secs(2 * 60 * 60) {
            config.keepalives_idle(Duration::from_secs(30));
            if config.get_keepalives_interval().is_none() {
                config.keepalives_interval(Duration::from_secs(10));
            }
            if config.get_keepalives_retries().is_none() {
                config.keepalives_retries(3);
            }
        }
        Self(config)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.0.get_hosts().iter().map(shown).collect();
        f.debug_struct("Target")
            .field("hosts", &hosts)
            .field("ports", &self.0.get_ports())
            .field("database", &self.0.get_dbname())
            .field("user", &self.0.get_user())
            .field("ssl_mode", &self.0.get_ssl_mode())
            .finish_non_exhaustive()
    }
}

fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_connection_string_is_told_without_quoting_it() {
        for (bad, word) in [
            ("postgres://ada:hunter2@localhost:hunter2/db", "port"),
            ("postgres://ada:hunter2@localhost/db?sslmode=hunter2", "sslmode"),
            ("postgres://ada:pass@hunter2@localhost/db?x", "neither"),
            ("postgres://localhost/db?hunter2=1", "neither"),
            ("postgres://ada:hunter2@localhost/db?sslrootcert=x", "sslrootcert"),
            ("mysql://ada:hunter2@localhost/db", "neither"),
            ("host=localhost password='hunter2", "neither"),
            ("host=localhost hunter2", "neither"),
            ("hunter2", "neither"),
        ] {
            let error = Target::parse(bad).map(|_| ()).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(matches!(error, Error::InvalidArgument { .. }), "{bad}: {told}");
            assert!(!told.contains("hunter2") && told.contains(word), "{bad}: {told}");
        }
    }

    #[test]
    fn a_target_shows_itself_without_its_password() {
        let target = Target::parse("postgres://ada:hunter2@db.example.com:5433/shop?options=-c%20x%3Dhunter2").unwrap();
        let shown = format!("{target:?}");
        assert!(shown.contains("db.example.com") && shown.contains("5433") && shown.contains("shop"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
