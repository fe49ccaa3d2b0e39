//! Clients of a flat cache, in a process of their own. It is a role of this program.
//!
//! Guarantees: a client does what go-containerregistry's client does with its file system cache, call by call. If a
//! layer is there, it opens it and peeks, opens it and reads all of it, opens it again and reads all of it, and closes
//! it each time. After a gap, it opens the layer once more and copies it out. If the name is gone at one of the first
//! three opens, that is a miss; at the last open, it breaks the pull. A missing layer is created under its final name
//! and held open to the end. Each client has its own layers, and checks everything that it reads. Two kinds of breaks
//! are counted separately, because nothing is promised for them: the client had nothing open for about as long as a
//! prune looks, or its pull lasted about as long as the grace.
//!
//! Source: go-containerregistry `pkg/v1/cache/cache.go`, `pkg/v1/cache/fs.go`, `pkg/v1/tarball/layer.go`.

mod image;
mod layer;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use oci_cache::SETTLE;
use rand::RngExt as _;

use crate::kit::counts::keep_first;
use crate::kit::pulls::broken::{Broken, at};
use crate::kit::random::random;
use crate::torture::clients::image::Image;
pub(crate) use crate::torture::clients::image::begin;
use crate::torture::clients::layer::{HOUR, Layer, age};
use crate::torture::puller::Pulled;

/// The number of layers of a client.
const LAYERS: u64 = 24;
/// The number of breaks to keep in words.
const DETAILS: usize = 5;
/// The step at which a pull finds a layer gone that it had found before.
pub(crate) const GONE: &str = "open of a hit";
/// The step of a pull that broke after it had stalled with nothing open.
pub(crate) const STALLED: &str = "stalled";
/// The step of a pull that broke after it had lasted longer than the prune's grace.
pub(crate) const OUTLASTED: &str = "outlasted the grace";

/// How a client pulls its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One layer after the other, with a gap before the last open.
    Gap,
    /// Looks up several layers, then opens them one after the other. Once the first is open, one always is.
    LookAhead,
    /// Writes an image into a layout, seconds between layers with nothing open, and the index last.
    Layout,
}

impl Manner {
    pub(crate) const ALL: [Self; 3] = [Self::Gap, Self::LookAhead, Self::Layout];

    /// The name in the table, and as the role takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::LookAhead => "look ahead",
            Self::Layout => "layout",
        }
    }
}

/// Pulls. The arguments are the manner, the cache, the cache's number, the number of clients, their time and the
/// prunes' grace in milliseconds, and `fed` if idle blobs are to arrive meanwhile.
pub(crate) fn play(words: &[&str]) -> anyhow::Result<()> {
    let [manner, cache, id, clients, time, grace, fed] = words else {
        bail!("clients take seven words: {words:?}")
    };
    let grace = Duration::from_millis(grace.parse()?);
    let manner = Manner::ALL.into_iter().find(|known| known.name() == *manner).context("no such manner")?;
    let (cache, id, clients): (&Path, u64, u64) = (Path::new(cache), id.parse()?, clients.parse()?);
    let end = Instant::now() + Duration::from_millis(time.parse()?);
    let mut all = Pulled::default();
    thread::scope(|scope| {
        let feeder = (*fed == "fed").then(|| scope.spawn(move || feed(cache, manner, id, end)));
        let start = |number| {
            let think = if clients <= 2 { Duration::from_millis(1500) } else { Duration::ZERO };
            let client = Client {
                manner,
                cache: cache.to_owned(),
                first: (id << 32) + (number << 16),
                grace,
                touched: Instant::now(),
                looked_up: Instant::now(),
                pulled: Pulled::default(),
            };
            scope.spawn(move || client.pull_until(end, think))
        };
        let clients: Vec<_> = (0..clients).map(start).collect();
        for client in clients {
            let pulled = client.join().map_err(|_| anyhow!("a client panicked"))?;
            all.merge(pulled);
        }
        if let Some(feeder) = feeder {
            feeder.join().map_err(|_| anyhow!("the feeder panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let line = serde_json::to_string(&all)?;
    io::stdout().lock().write_all(line.as_bytes()).context("write to stdout")
}

struct Client {
    manner: Manner,
    cache: PathBuf,
    /// The number of its first layer.
    first: u64,
    /// The prunes' grace.
    grace: Duration,
    /// When it last closed a file of the cache.
    touched: Instant,
    /// When it began to look up what it pulls.
    looked_up: Instant,
    pulled: Pulled,
}

impl Client {
    fn pull_until(mut self, end: Instant, think: Duration) -> Pulled {
        while Instant::now() < end {
            self.pulled.pulls += 1;
            self.looked_up = Instant::now();
            let pulled = match self.manner {
                Manner::Gap => self.pull(),
                Manner::LookAhead => self.look_ahead(end),
                Manner::Layout => self.pull_image(),
            };
            if let Err(Broken { step, cause }) = pulled {
                // The limits are a little lower than the prune's, because the process may note a close late.
                let idle = self.touched.elapsed();
                let step = match step {
                    GONE if idle > SETTLE - SETTLE / 10 => STALLED,
                    GONE if self.looked_up.elapsed() > self.grace - self.grace / 10 => OUTLASTED,
                    step => step,
                };
                self.pulled.breaks.add(step.to_owned(), 1);
                let detail = format!(
                    "{}, {step}, {} ms after the last close: {cause}",
                    self.manner.name(),
                    idle.as_millis()
                );
                keep_first(&mut self.pulled.details, DETAILS, [detail]);
            }
            if !think.is_zero() {
                thread::sleep(random().random_range(Duration::ZERO..think));
            }
        }
        self.pulled
    }

    fn any_layers(&self, count: usize) -> Vec<Layer> {
        let mut random = random();
        (0..count).map(|_| Layer { number: self.first + random.random_range(0..LAYERS) }).collect()
    }

    /// Pulls a new image into the layout.
    fn pull_image(&mut self) -> Result<(), Broken> {
        let image = Image { number: self.first + self.pulled.pulls };
        image.pull(&self.cache)
    }

    /// Pulls an image of four layers.
    fn pull(&mut self) -> Result<(), Broken> {
        for layer in self.any_layers(4) {
            if self.look_up(layer)? {
                thread::sleep(gap());
                let file = self.open_hit(layer)?;
                layer.check(file)?;
            } else {
                drop(layer.download(&self.cache)?);
            }
            self.touched = Instant::now();
        }
        Ok(())
    }

    /// Pulls an image of 2 to 12 layers, which it looks up first.
    fn look_ahead(&mut self, end: Instant) -> Result<(), Broken> {
        let layers = self.any_layers(random().random_range(2..=12));
        let mut found = Vec::new();
        for layer in layers {
            found.push((layer, self.look_up(layer)?));
        }
        let mut held: Option<File> = None;
        for (layer, is_there) in found {
            // Until the first layer is open, nothing is, so the pause must be short.
            let pause = if held.is_some() { pause() } else { gap() };
            thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
            if held.is_some() {
                self.touched = Instant::now();
            }
            let next = if is_there { self.open_hit(layer)? } else { layer.download(&self.cache)? };
            if is_there {
                layer.check(next.try_clone().map_err(at("read"))?)?;
            }
            held = Some(next);
            self.touched = Instant::now();
        }
        Ok(())
    }

    /// Whether the layer is in the cache.
    fn look_up(&mut self, layer: Layer) -> Result<bool, Broken> {
        let path = layer.path_in(&self.cache);
        for read in 0..3 {
            let mut file = match self.open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                file => file.map_err(at("look up"))?,
            };
            if read == 0 {
                file.read_exact(&mut [0; 2]).map_err(at("peek"))?;
            } else {
                layer.check(file)?;
            }
            self.touched = Instant::now();
        }
        Ok(true)
    }

    fn open_hit(&mut self, layer: Layer) -> Result<File, Broken> {
        self.open(&layer.path_in(&self.cache)).map_err(at(GONE))
    }

    /// Opens a file, and notes how long that took.
    fn open(&mut self, path: &Path) -> io::Result<File> {
        let start = Instant::now();
        let opened = File::open(path);
        self.pulled.worst_open = self.pulled.worst_open.max(start.elapsed());
        opened
    }
}

/// Up to 100 ms, mostly short.
fn gap() -> Duration {
    Duration::from_secs_f64(0.1 * random().random_range(0.0f64..1.0).powi(4))
}

/// Up to 10 s, mostly short.
fn pause() -> Duration {
    Duration::from_secs_f64(10.0 * random().random_range(0.0f64..1.0).powi(40))
}

/// Brings blobs that have been idle for hours into the cache, one by one.
fn feed(cache: &Path, manner: Manner, id: u64, end: Instant) -> anyhow::Result<()> {
    let temporary = cache.with_extension(format!("feed-{id}"));
    for number in 0u64.. {
        if Instant::now() >= end {
            break;
        }
        let file = File::create(&temporary).context("make an idle blob")?;
        file.set_len(1 + number % 4096).context("fill an idle blob")?;
        age(&file, 3 * HOUR, 3 * HOUR).context("age an idle blob")?;
        drop(file);
        let name = format!("f{id:031x}{number:032x}");
        let name = match manner {
            Manner::Layout => format!("blobs/sha256/{name}"),
            Manner::Gap | Manner::LookAhead => format!("sha256:{name}"),
        };
        // If the directory is missing, the blob does not arrive.
        let _ = fs::rename(&temporary, cache.join(name));
        thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(cache: &Path, manner: Manner) -> Client {
        Client {
            manner,
            cache: cache.to_owned(),
            first: 7 << 16,
            grace: HOUR,
            touched: Instant::now(),
            looked_up: Instant::now(),
            pulled: Pulled::default(),
        }
    }

    #[test]
    fn a_client_fills_the_cache_and_finds_what_is_there() {
        for manner in [Manner::Gap, Manner::LookAhead] {
            let directory = tempfile::tempdir().unwrap();
            let cache = directory.path().join("cache");
            let end = Instant::now() + Duration::from_millis(1500);
            let pulled = client(&cache, manner).pull_until(end, Duration::ZERO);
            assert!(pulled.pulls > 0 && pulled.breaks.sum() == 0, "{pulled:?}");
            assert!(fs::read_dir(&cache).unwrap().count() > 1);
        }
    }

    #[test]
    fn a_layer_that_goes_after_it_was_found_breaks_the_pull() {
        let directory = tempfile::tempdir().unwrap();
        let layer = Layer { number: 7 << 16 };
        let mut client = client(directory.path(), Manner::Gap);
        assert!(!client.look_up(layer).unwrap());
        drop(layer.download(directory.path()).unwrap());
        assert!(client.look_up(layer).unwrap());
        fs::rename(layer.path_in(directory.path()), directory.path().join("elsewhere")).unwrap();
        assert_eq!(client.open_hit(layer).unwrap_err().step, GONE);
        fs::write(layer.path_in(directory.path()), "truncated").unwrap();
        assert_eq!(client.look_up(layer).unwrap_err().step, "content");
    }
}
