//! The account that the server runs as: this process's own, unless that is root.

use std::fs;

use super::Error;

/// Tried in this order; the first comes with most Postgres packages, the second with every Unix.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub user: u32,
    pub group: u32,
}

/// `None`: the server may run as we do.
pub(super) fn to_run_as() -> Result<Option<Account>, Error> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
    let account = CANDIDATES.iter().find_map(|name| look_up(&passwd, name));
    account.map(Some).ok_or(Error::NoAccount)
}

/// `name:password:user:group:…`
fn look_up(passwd: &str, name: &str) -> Option<Account> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.first() == Some(&name))?;
    let user = fields.get(2)?.parse().ok()?;
    let group = fields.get(3)?.parse().ok()?;
    Some(Account { user, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8:::\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(look_up(passwd, "postgres"), Some(Account { user: 101, group: 104 }));
        assert_eq!(look_up(passwd, "nobody"), None);
    }
}
