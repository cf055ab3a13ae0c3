//! How long launches take: the median of a few replays of one graph, which costs the host next to nothing.

use std::time::{Duration, Instant};

use super::pool::{Pool, Work};
use super::{Effort, KernelBenchError};
use crate::bench::Distribution;
use crate::ops::{Address, Device, OpError};

/// Time of one set's launches.
pub(super) fn launch_time<D: Device>(
    pool: &Pool<'_, D>,
    sets: &[Vec<Work>],
    effort: &Effort,
) -> Result<Duration, KernelBenchError> {
    let device = pool.device;
    let record = |turns: usize| {
        device.capture(|| {
            let work = std::iter::repeat_n(sets, turns).flatten().flatten();
            work.into_iter().try_for_each(|it| it.on(device))
        })
    };
    let marker = Marker::new(device)?;
    let replay = |graph: &D::Graph| marker.time(device, || device.replay(graph));
    // A launch that the device has not seen may cost it time that later ones do not: the first replay does not count.
    let pilot = record(1)?;
    replay(&pilot)?;
    let turn = replay(&pilot)?;
    let nodes = sets.iter().map(Vec::len).sum::<usize>().max(1);
    let wanted = effort.graph_time.as_secs_f64() / turn.as_secs_f64().max(1e-6);
    let turns = (wanted.ceil() as usize).clamp(1, (MOST_NODES / nodes).max(1));
    let graph = if turns == 1 { pilot } else { record(turns)? };
    let mut seconds = Vec::with_capacity(effort.replays);
    for _ in 0..effort.replays.max(1) {
        seconds.push(replay(&graph)?.as_secs_f64());
    }
    let median = Distribution::of(seconds).median();
    Ok(Duration::from_secs_f64(
        median / (turns * sets.len()) as f64,
    ))
}

/// Time of one copy of [`Effort::copy_bytes`] bytes within the device.
pub(super) fn copy_time<D: Device>(
    pool: &mut Pool<'_, D>,
    effort: &Effort,
) -> Result<Duration, KernelBenchError> {
    let bytes = effort.copy_bytes;
    let from = pool.floats(bytes / size_of::<f32>())?;
    let to = pool.empty(bytes)?;
    let device = pool.device;
    let marker = Marker::new(device)?;
    let copies = || (0..COPIES).try_for_each(|_| device.copy(from, to, bytes));
    marker.time(device, copies)?;
    let mut seconds = Vec::with_capacity(effort.replays);
    for _ in 0..effort.replays.max(1) {
        seconds.push(marker.time(device, copies)?.as_secs_f64());
    }
    let median = Distribution::of(seconds).median();
    Ok(Duration::from_secs_f64(median / COPIES as f64))
}

/// A few bytes on the device. To download them is to wait for all that was asked before.
struct Marker<M> {
    at: Address,
    _memory: M,
}

impl<M: crate::ops::Memory> Marker<M> {
    fn new<D: Device<Memory = M>>(device: &D) -> Result<Self, OpError> {
        let memory = device.allocate(size_of::<u32>())?;
        let at = memory.address();
        device.upload(&[0; size_of::<u32>()], at)?;
        Ok(Self {
            at,
            _memory: memory,
        })
    }

    fn wait<D: Device>(&self, device: &D) -> Result<(), OpError> {
        device.download(self.at, &mut [0; size_of::<u32>()])
    }

    /// From an idle device until it is idle again.
    fn time<D: Device>(
        &self,
        device: &D,
        work: impl FnOnce() -> Result<(), OpError>,
    ) -> Result<Duration, OpError> {
        self.wait(device)?;
        let start = Instant::now();
        work()?;
        self.wait(device)?;
        Ok(start.elapsed())
    }
}

/// Of a graph. More take the driver long to make ready.
const MOST_NODES: usize = 4096;

const COPIES: usize = 10;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread::sleep;

    use super::*;
    use crate::bench::kernels::tests::least;
    use crate::ops::{Launch, Memory, Staged};

    /// Launches that take 1 ms each. A graph is how many there are.
    #[derive(Debug, Default)]
    struct Slow {
        recorded: Mutex<usize>,
        replayed: Mutex<Vec<usize>>,
    }

    #[derive(Debug)]
    struct Nowhere;

    impl Memory for Nowhere {
        fn address(&self) -> Address {
            Address(256)
        }
    }

    impl Staged for Nowhere {
        fn bytes(&self) -> usize {
            0
        }

        fn settled(&mut self) -> Result<&mut [u8], OpError> {
            Ok(&mut [])
        }
    }

    impl Device for Slow {
        type Memory = Nowhere;
        type Staged = Nowhere;
        type Graph = usize;

        fn describe(&self) -> String {
            "slow".to_owned()
        }

        fn allocate(&self, _: usize) -> Result<Nowhere, OpError> {
            Ok(Nowhere)
        }

        fn upload(&self, _: &[u8], _: Address) -> Result<(), OpError> {
            Ok(())
        }

        fn download(&self, _: Address, _: &mut [u8]) -> Result<(), OpError> {
            Ok(())
        }

        fn stage(&self, _: usize) -> Result<Nowhere, OpError> {
            Ok(Nowhere)
        }

        fn send(&self, _: &mut Nowhere, _: usize, _: Address) -> Result<(), OpError> {
            Ok(())
        }

        fn fetch(&self, _: Address, _: usize, _: &mut Nowhere) -> Result<(), OpError> {
            Ok(())
        }

        fn between(&self, _: &Nowhere, _: &Nowhere) -> Result<Option<Duration>, OpError> {
            Ok(None)
        }

        fn copy(&self, _: Address, _: Address, _: usize) -> Result<(), OpError> {
            Ok(())
        }

        fn launch(&self, _: &Launch) -> Result<(), OpError> {
            *self.recorded.lock().unwrap() += 1;
            Ok(())
        }

        fn capture<E: From<OpError>>(
            &self,
            work: impl FnOnce() -> Result<(), E>,
        ) -> Result<usize, E> {
            *self.recorded.lock().unwrap() = 0;
            work()?;
            Ok(*self.recorded.lock().unwrap())
        }

        fn replay(&self, graph: &usize) -> Result<(), OpError> {
            self.replayed.lock().unwrap().push(*graph);
            sleep(LAUNCH * *graph as u32);
            Ok(())
        }
    }

    #[test]
    fn time_is_that_of_one_set_however_many_a_graph_has() {
        let device = Slow::default();
        let effort = Effort {
            graph_time: 40 * LAUNCH,
            replays: 3,
            ..least()
        };
        let launch = Launch {
            kernel: "slow",
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
            arguments: Vec::new(),
        };
        // Two sets of two launches each.
        let sets = vec![vec![Work::from(launch.clone()), launch.into()]; 2];
        let time = launch_time(&Pool::new(&device, &effort), &sets, &effort).unwrap();
        // A sleep is never shorter than it should be. That of a graph would have to be twice as long to fail.
        assert!(time >= 2 * LAUNCH && time < 4 * LAUNCH, "{time:?}");
        let replayed = device.replayed.lock().unwrap().clone();
        let [first, second, graphs @ ..] = &replayed[..] else {
            panic!("{replayed:?}")
        };
        assert_eq!([first, second], [&4; 2], "each set once");
        assert_eq!(graphs.len(), 3);
        // Ten turns, fewer if the machine was slow when it counted.
        assert!(
            graphs.iter().all(|&it| it % 4 == 0 && it <= 40),
            "{replayed:?}"
        );
    }

    const LAUNCH: Duration = Duration::from_millis(1);
}
