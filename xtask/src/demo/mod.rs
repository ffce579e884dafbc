//! `demo`: weir at work on one machine, live.
//!
//! ```text
//! build ─▶ world: two nodes, five pods, a client outside ─▶ one agent per node ─▶ scenes ─▶ weir-ingress ─▶ scenes ─▶ clean-up
//! ```
//!
//! Each scene makes real connections, shows where they went, and notes as [`Checks`] what must be true of it.

mod bars;
mod building;
mod checks;
mod ingress;
mod inside;
mod refuse;
mod scale;
mod screen;
mod spread;
mod stay;
mod world;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use checks::Checks;
use screen::{Screen, Style};
use world::World;

/// A part of the demo.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Hosts, paths and TLS, straight to the pods
    Ingress,
}

/// What `demo` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show this alone
    part: Option<Part>,
    /// Verify all that is shown without pauses, and fail if anything is not as it should be
    #[arg(long)]
    check: bool,
    /// Leave the nodes in place at the end, to play with
    #[arg(long)]
    keep: bool,
}

/// Builds weir and shows it.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(reason) = weir_lab::missing() {
        bail!("the demo makes network namespaces on this machine: {reason}");
    }
    weir_lab::clean_up_on_signals()?;
    let mut screen = Screen::new();
    let world = match args.part {
        None => {
            screen.title("weir: Services spread over their endpoints by programs in the kernel");
            building::all(&mut screen)?;
            building::ingress(&mut screen)?;
            World::build(&mut screen)?
        }
        Some(Part::Ingress) => {
            screen.title("weir-ingress: HTTP and HTTPS by host and path, straight to the pods");
            building::ingress(&mut screen)?;
            World::bare(&mut screen)?
        }
    };
    let mut stage = Stage {
        pace: Pace::new(args.check, screen.is_terminal()),
        screen,
        checks: Checks::default(),
        world,
    };
    let shown = stage.play();
    if args.keep {
        stage.screen.failure(shown.as_ref().err());
        stay::stay(&mut stage)?;
    }
    // In this order: the lab goes before the verdict is the last line.
    let Stage {
        mut screen,
        checks,
        world,
        ..
    } = stage;
    screen.step("cleaned up", || world.remove())?;
    shown?;
    checks.verdict(&mut screen)
}

/// How fast things go: a person wants to watch, a pipeline wants to be done.
#[derive(Clone, Copy)]
struct Pace {
    /// Connections a second while bars grow; 0: as fast as possible.
    rate: u64,
    /// Seconds of each phase of the load.
    phase: u64,
}

impl Pace {
    fn new(check: bool, watched: bool) -> Self {
        if watched && !check {
            Self { rate: 1500, phase: 4 }
        } else {
            Self { rate: 0, phase: 2 }
        }
    }
}

/// What every scene works with.
struct Stage {
    screen: Screen,
    checks: Checks,
    world: World,
    pace: Pace,
}

impl Stage {
    fn play(&mut self) -> Result<()> {
        self.show_map();
        if !self.world.has_agents() {
            return ingress::play(self, 1).context("the ingress");
        }
        spread::play(self).context("spreading connections")?;
        refuse::play(self).context("a Service without endpoints")?;
        // Before backends come and go: one that comes back is counted anew.
        inside::play(self).context("looking inside")?;
        scale::play(self).context("scaling under load")?;
        ingress::play(self, 7).context("the ingress")
    }

    /// The drawing of what was built.
    fn show_map(&mut self) {
        let map = self.world.map();
        self.screen.blank();
        for line in map {
            let line = self.screen.paint(Style::Quiet, &line);
            self.screen.line(&line);
        }
    }
}
