//! The demonstration itself: what runs between the start of the services and their end.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::board::{Board, settled};
use super::books::{self, balanced};
use super::commands::Commands;
use super::crew::Crew;
use super::holdings::{holdings, queries};
use super::ledger::{Sum, Sums};
use super::listener::Listener;
use super::project::Project;
use super::refused::Refused;
use super::replayed::{Replayed, replayed};
use super::sample::SampleTraffic;
use super::services::Services;
use super::traffic::{Sent, Traffic};
use super::view::{FRAME_EVERY, View};
use super::{Balance, Difference, Error, SharedBooks, Verdict, open};
use crate::config::Config;
use crate::postgres::{HeldQuery, Snapshot, Store};
use crate::worker::Worker;

/// How often the tables are asked.
const TABLES_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether everything is settled and published.
const SETTLED_POLL: Duration = Duration::from_millis(100);
/// With no record settled or published for this long, the books are checked as they are.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(30);

/// All that runs, and what was seen of it.
pub(super) struct Demo<'a> {
    worker: Worker,
    config: Config,
    samples: Vec<SampleTraffic>,
    queries: Vec<HeldQuery>,
    store: Store,
    books: SharedBooks,
    traffic: Traffic,
    crew: Crew,
    listener: Listener,
    refused: Refused,
    view: &'a mut View,
    board: Board,
    /// The first that a look at the tables has shown, whatever the later ones show.
    difference: Option<Difference>,
    began: Instant,
}

impl<'a> Demo<'a> {
    pub(super) async fn play(
        mut project: Project,
        services: &Services,
        began: Instant,
        length: Option<Duration>,
        view: &'a mut View,
        shutdown: CancellationToken,
    ) -> Result<Verdict, Error> {
        view.opening(services, &project.commands);
        let commands = std::mem::replace(&mut project.commands, Commands::Made(Vec::new()));
        let config = &services.config;
        let (books, refused) = (SharedBooks::default(), Refused::counting());
        let store = Store::new(&config.database, "solewriter dev")?;
        let mut demo = Self {
            queries: queries(&project.worker.samples, &config.database.tables_schema),
            listener: Listener::start(config, books.clone())?,
            crew: Crew::start(&project, services, &store, &refused, length),
            traffic: Traffic::start(commands, config, books.clone())?,
            samples: std::mem::take(&mut project.worker.samples),
            worker: project.worker,
            config: config.clone(),
            store,
            books,
            refused,
            view,
            board: Board::default(),
            difference: None,
            began,
        };
        demo.until_the_end(length, shutdown).await?;
        demo.view.note("the traffic stops; waiting until everything is settled and published");
        let sent = demo.traffic.stop().await?;
        demo.crew.calm_down();
        demo.finish(&sent).await?;
        demo.look().await?;
        demo.check().await
    }

    async fn until_the_end(&mut self, length: Option<Duration>, shutdown: CancellationToken) -> Result<(), Error> {
        let mut end = std::pin::pin!(async {
            match length {
                Some(length) => sleep(length).await,
                None => std::future::pending().await,
            }
        });
        let (mut seconds, mut frames) = (every(TABLES_EVERY), every(FRAME_EVERY));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = &mut end => return Ok(()),
                event = self.crew.event() => self.view.note(event?),
                // the wait for the first effect is part of what a newcomer sees
                () = self.listener.first_effect() => self.view.first_effect(self.began.elapsed()),
                _ = seconds.tick() => self.look().await?,
                _ = frames.tick() => self.frame(),
            }
        }
    }

    /// What costs nothing to know.
    fn frame(&mut self) {
        self.board.at = self.began.elapsed();
        self.board.refused = self.refused.count();
        self.board.repeats_answered = open(&self.books).repeats_answered();
        self.view.frame(&self.board);
    }

    /// What the tables say, and whether they agree with the books by now.
    async fn look(&mut self) -> Result<(), Error> {
        let rows = self.store.status().await?;
        self.traffic.settled(settled(&rows));
        self.board.tables(self.began.elapsed(), &rows, &self.traffic.ends());
        self.board.latency = open(&self.books).recent_latency();
        match self.sums().await? {
            Ok(sums) => self.board.sums(&sums, &self.samples),
            Err(difference) => self.differs(difference),
        }
        self.look_for_dead_letters().await?;
        self.tell_other_dead_letters();
        self.frame();
        self.view.second(&self.board);
        Ok(())
    }

    /// What the entities hold and what was added, as of one instant.
    async fn sums(&self) -> Result<Result<Sums, Difference>, Error> {
        let floor = open(&self.books).ledger().floor();
        let seen = self.store.snapshot(floor, &self.queries).await?;
        let sums = {
            let mut books = open(&self.books);
            books.ledger().settled(&seen.settled);
            holdings(&self.samples, &seen.entities, &seen.held).map(|holdings| books.ledger().sums(&holdings))
        };
        let sums = sums.map_err(Difference::from).and_then(balanced);
        if sums.is_ok() {
            return Ok(sums);
        }
        // somebody else's command with an older id is not among the newest rows: look at all of
        // them before anything is said
        let all = self.store.snapshot(Uuid::nil(), &self.queries).await?;
        let holdings = holdings(&self.samples, &all.entities, &all.held).map_err(Difference::from);
        Ok(holdings.and_then(|holdings| open(&self.books).sums(&all.settled, &holdings)))
    }

    /// A sample that is one is a mistake in the sample or in its command, and is better known now.
    async fn look_for_dead_letters(&mut self) -> Result<(), Error> {
        if self.difference.is_some() {
            return Ok(());
        }
        let letters = self.store.dead_commands().await?;
        let checked = open(&self.books).check_dead(&letters);
        if let Err(difference) = checked {
            self.differs(difference);
        }
        Ok(())
    }

    /// The first of each type and code; how many there are is said at the end.
    fn tell_other_dead_letters(&mut self) {
        let Some(first) = &self.difference else { return };
        let kind = Difference::dead_kind;
        let untold = open(&self.books).take_untold();
        for other in untold.iter().filter(|other| kind(other) != kind(first)) {
            self.view.note(format!("ANOTHER DIFFERENCE: {other}"));
        }
    }

    fn differs(&mut self, difference: Difference) {
        if let Difference::Sum { entity_type, held, added } = &difference {
            let sum = Sum { held: *held, added: *added };
            self.board.sums(&Sums::from([(entity_type.clone(), sum)]), &self.samples);
        }
        if self.difference.is_none() {
            self.view.note(format!("A DIFFERENCE: {difference}"));
            self.difference = Some(difference);
        }
    }

    /// Waits until every command is settled, and every outcome read back from its topic.
    async fn finish(&mut self, sent: &Sent) -> Result<(), Error> {
        let mut last = (0, 0);
        let mut progressed = Instant::now();
        let (mut seconds, mut frames) = (every(TABLES_EVERY), every(FRAME_EVERY));
        let mut polls = every(SETTLED_POLL);
        while progressed.elapsed() < PROGRESS_WAIT_MAX {
            tokio::select! {
                event = self.crew.event() => self.view.note(event?),
                _ = seconds.tick() => self.look().await?,
                _ = frames.tick() => self.frame(),
                _ = polls.tick() => {
                    let rows = self.store.status().await?;
                    let owed = open(&self.books).owed();
                    let published = rows.iter().all(|row| row.published_offset >= row.next_offset);
                    let halted = rows.iter().any(|row| row.halted_code.is_some());
                    // what has become a dead letter is never answered with a final outcome
                    let answered = owed == 0 || self.difference.is_some();
                    if halted || (answered && published && sent.all_below_cursors(&rows)) {
                        break;
                    }
                    let now = (settled(&rows), owed);
                    if now != last {
                        (last, progressed) = (now, Instant::now());
                    }
                }
            }
        }
        Ok(())
    }

    async fn check(mut self) -> Result<Verdict, Error> {
        let happened = self.crew.happened().clone();
        self.crew.stop().await?;
        self.listener.stop();
        let Snapshot { settled, entities, held } = self.store.snapshot(Uuid::nil(), &self.queries).await?;
        let (partitions, dead) = (self.store.status().await?, self.store.dead_commands().await?);
        let evidence = books::Evidence { partitions, settled, dead, entities, held };
        self.store.close().await;
        let tally = open(&self.books).tally();
        if let Some(difference) = self.difference {
            return Ok(Verdict { books: Err(difference), tally });
        }
        let balance = open(&self.books).check(&evidence, &self.samples);
        let (take_overs, zombies) = (happened.take_overs(), happened.zombies());
        let refused = self.refused.count();
        let mut books = balance.map(|balance| Balance { take_overs, zombies, refused, ..balance });
        if let Ok(balance) = &mut books {
            self.view.note("the books balance; running the log again in a shadow database");
            match replayed(&self.worker, &self.config).await? {
                Replayed::Alike(commands) => balance.replayed = Some(commands),
                Replayed::Different(difference) => books = Err(difference),
                Replayed::Impossible(why) => self.view.note(format!("NOT RUN AGAIN: {why}")),
            }
        }
        Ok(Verdict { books, tally })
    }
}

/// One that was missed is not made up for.
fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at((Instant::now() + period).into(), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
