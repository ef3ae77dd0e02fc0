//! What a row costs: CPU of the three parts, write-ahead log, transaction ids, disk and memory.
//!
//! CPU and memory are read from `/proc`, so they are known of processes of this machine only; what is
//! elsewhere has no number rather than a wrong one.

use serde::Serialize;
use sqlx::PgPool;

use super::Error;

/// A number of operating-system process.
pub(super) type Pid = u32;

/// Whose CPU is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts {
    /// The server process of Postgres; its sessions are its children.
    pub(super) postmaster: Option<Pid>,
    pub(super) broker: Option<Pid>,
}

/// CPU seconds since the processes began, user and system.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Cpu {
    /// The worker, or this process where it does the work.
    pub(super) worker: Option<f64>,
    pub(super) postgres: Option<f64>,
    pub(super) broker: Option<f64>,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meters {
    cpu: Cpu,
    wal_bytes: i64,
    transaction_ids: i64,
}

/// What one command has cost.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Cost {
    /// CPU seconds per 100,000 commands.
    pub(super) cpu_seconds: Cpu,
    pub(super) wal_bytes: f64,
    pub(super) transaction_ids: f64,
}

impl Meters {
    /// Reads them; `workers` are processes, or this one where there are none.
    pub(super) async fn read(pool: &PgPool, parts: Parts, workers: &[Pid]) -> Result<Self, Error> {
        let (wal_bytes, transaction_ids) = sqlx::query_as(
            "select (pg_current_wal_insert_lsn() - '0/0')::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
        )
        .fetch_one(pool)
        .await?;
        let own = [std::process::id()];
        let workers = if workers.is_empty() { &own } else { workers };
        let cpu = Cpu {
            worker: workers.iter().map(|pid| cpu_seconds(*pid)).sum(),
            postgres: parts.postmaster.and_then(cpu_seconds_of_tree),
            broker: parts.broker.and_then(cpu_seconds),
        };
        Ok(Self { cpu, wal_bytes, transaction_ids })
    }

    /// What each of so many commands has cost from `self` to `later`.
    pub(super) fn cost(&self, later: &Self, commands: u64) -> Cost {
        let each = commands.max(1) as f64;
        let seconds = |from: Option<f64>, to: Option<f64>| Some((to? - from?) * 100_000.0 / each);
        Cost {
            cpu_seconds: Cpu {
                worker: seconds(self.cpu.worker, later.cpu.worker),
                postgres: seconds(self.cpu.postgres, later.cpu.postgres),
                broker: seconds(self.cpu.broker, later.cpu.broker),
            },
            wal_bytes: (later.wal_bytes - self.wal_bytes) as f64 / each,
            transaction_ids: (later.transaction_ids - self.transaction_ids) as f64 / each,
        }
    }
}

/// Bytes on disk of all tables of a schema, with their indexes.
pub(super) async fn disk_bytes(pool: &PgPool, schemas: &[&str]) -> Result<i64, Error> {
    let bytes = sqlx::query_scalar(
        "select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
           from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where n.nspname = any ($1) and c.relkind = 'r'",
    );
    Ok(bytes.bind(schemas).fetch_one(pool).await?)
}

/// The processes of this machine that are the database's server and the broker, as far as they are.
pub(super) async fn parts(pool: &PgPool, broker: Option<Pid>, bootstrap_servers: &str) -> Result<Parts, Error> {
    let session: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool).await?;
    let port = bootstrap_servers.split(',').next().and_then(|server| server.rsplit(':').next()?.parse().ok());
    let is_here = ["127.0.0.1:", "localhost:", "[::1]:"].iter().any(|host| bootstrap_servers.starts_with(host));
    let broker = broker.or_else(|| if is_here { listener(port?) } else { None });
    Ok(Parts { postmaster: u32::try_from(session).ok().and_then(postmaster), broker })
}

#[cfg(target_os = "linux")]
pub(super) use linux::{cpu_seconds, memory_bytes, memory_bytes_max};
#[cfg(target_os = "linux")]
use linux::{cpu_seconds_of_tree, listener, postmaster};

#[cfg(target_os = "linux")]
mod linux {
    use procfs::net::TcpState;
    use procfs::process::{self, FDTarget, Process, Stat};

    use super::Pid;

    fn open(pid: Pid) -> Option<Process> {
        Process::new(i32::try_from(pid).ok()?).ok()
    }

    fn seconds(ticks: u64) -> f64 {
        ticks as f64 / procfs::ticks_per_second() as f64
    }

    /// A process's own time.
    pub(crate) fn cpu_seconds(pid: Pid) -> Option<f64> {
        let stat = open(pid)?.stat().ok()?;
        Some(seconds(stat.utime + stat.stime))
    }

    /// With that of its children, also of those that have ended.
    pub(super) fn cpu_seconds_of_tree(pid: Pid) -> Option<f64> {
        let own = open(pid)?.stat().ok()?;
        let ended = u64::try_from(own.cutime + own.cstime).unwrap_or(0);
        let running: u64 = children(own.pid).map(|stat| stat.utime + stat.stime).sum();
        Some(seconds(own.utime + own.stime + ended + running))
    }

    fn children(parent: i32) -> impl Iterator<Item = Stat> {
        let all = process::all_processes().into_iter().flatten();
        all.filter_map(move |process| process.ok()?.stat().ok().filter(|stat| stat.ppid == parent))
    }

    /// The most memory that it ever held: bytes.
    pub(crate) fn memory_bytes_max(pid: Pid) -> Option<u64> {
        Some(open(pid)?.status().ok()?.vmhwm? * 1024)
    }

    /// The memory that it holds now: bytes.
    pub(crate) fn memory_bytes(pid: Pid) -> Option<u64> {
        Some(open(pid)?.status().ok()?.vmrss? * 1024)
    }

    /// The server of a session, if that is a process of this machine: the number alone may be another's.
    pub(super) fn postmaster(session: Pid) -> Option<Pid> {
        let session = open(session)?.stat().ok().filter(|stat| stat.comm == "postgres")?;
        let server = u32::try_from(session.ppid).ok()?;
        open(server)?.stat().ok().filter(|stat| stat.comm == "postgres").map(|_| server)
    }

    /// Who listens on a port, as far as this user may see it.
    pub(super) fn listener(port: u16) -> Option<Pid> {
        let sockets = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
        let mut listening = sockets.filter(|socket| socket.state == TcpState::Listen);
        let inode = listening.find(|socket| socket.local_address.port() == port)?.inode;
        let holds = |process: &Process| {
            let files = process.fd().into_iter().flatten().flatten();
            files.into_iter().any(|file| file.target == FDTarget::Socket(inode))
        };
        let mut processes = process::all_processes().ok()?.filter_map(Result::ok);
        processes.find(holds).and_then(|process| u32::try_from(process.pid).ok())
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use super::Pid;

    pub(crate) fn cpu_seconds(_: Pid) -> Option<f64> {
        None
    }

    pub(super) fn cpu_seconds_of_tree(_: Pid) -> Option<f64> {
        None
    }

    pub(crate) fn memory_bytes_max(_: Pid) -> Option<u64> {
        None
    }

    pub(crate) fn memory_bytes(_: Pid) -> Option<u64> {
        None
    }

    pub(super) fn postmaster(_: Pid) -> Option<Pid> {
        None
    }

    pub(super) fn listener(_: u16) -> Option<Pid> {
        None
    }
}
#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{cpu_seconds, memory_bytes, memory_bytes_max};
#[cfg(not(target_os = "linux"))]
use elsewhere::{cpu_seconds_of_tree, listener, postmaster};

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_part_of_its_tree_s() {
        let own = std::process::id();
        let (alone, tree) = (cpu_seconds(own).expect("time"), cpu_seconds_of_tree(own).expect("time"));
        assert!(tree >= alone && alone >= 0.0);
        // in this order: it may grow between the two
        let now = memory_bytes(own);
        assert!(memory_bytes_max(own) >= now && now > Some(0));
    }

    #[test]
    fn who_listens_on_a_port_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        assert_eq!(listener(port), Some(std::process::id()));
    }

    #[test]
    fn a_session_of_another_program_has_no_server() {
        assert_eq!(postmaster(std::process::id()), None);
    }
}
