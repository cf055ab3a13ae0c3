//! The model against logits that transformers computed in f32 (`models/goldens`), and against itself: however a
//! prompt is cut into steps and whatever shares them, its logits are the same bits.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::testing::{Part, Sequence, load, run, run_after_copies};
use super::{KvCache, Mixtral};

#[test]
fn whole_prompts_agree_with_transformers_within_1e_4() {
    for golden in goldens() {
        let mut model = load(&golden.folder, 128);
        for prompt in &golden.prompts {
            let logits = alone(&mut model, prompt, &[whole(prompt)]);
            let (mut largest, mut error) = (0.0f32, 0.0f32);
            for (at, &position) in prompt.positions.iter().enumerate() {
                for (ours, theirs) in logits[position].iter().zip(&prompt.logits[at]) {
                    largest = largest.max(theirs.abs());
                    error = error.max((ours - theirs).abs());
                    assert!(ours.is_finite());
                }
            }
            let best: Vec<usize> = logits.iter().map(|row| argmax(row)).collect();
            assert_eq!(best, prompt.argmax, "{}: top-1 differs", golden.name);
            assert!(
                error <= 1e-4 * largest,
                "{}: off by {error:e} of {largest}",
                golden.name
            );
        }
    }
}

#[test]
fn token_by_token_gives_the_bits_of_the_whole_prompt() {
    each_prompt(|model, prompt, expected| {
        let steps: Vec<Vec<Part>> = (0..prompt.ids.len())
            .map(|at| vec![(0, at..at + 1)])
            .collect();
        assert_eq!(alone(model, prompt, &steps), expected);
    });
}

#[test]
fn odd_chunks_give_the_bits_of_the_whole_prompt() {
    each_prompt(|model, prompt, expected| {
        for chunk in [2, 5, 7, 17] {
            assert_eq!(
                alone(model, prompt, &chunks(0, prompt, chunk)),
                expected,
                "chunks of {chunk}"
            );
        }
    });
}

#[test]
fn prompts_that_share_steps_give_the_bits_of_each_alone() {
    for golden in goldens() {
        let mut model = load(&golden.folder, 128);
        let expected: Vec<_> = golden
            .prompts
            .iter()
            .map(|prompt| alone(&mut model, prompt, &[whole(prompt)]))
            .collect();
        let sequences: Vec<Sequence> = golden
            .prompts
            .iter()
            .zip(0..)
            .map(|(p, i)| p.scattered(i, 4, 5))
            .collect();
        // Each prompt enters one step later than the one before and moves at its own pace: prompt chunks of some
        // share steps with single tokens of others.
        let paces = [1, 6, 4, 3];
        let mut steps: Vec<Vec<Part>> = Vec::new();
        for (index, prompt) in golden.prompts.iter().enumerate() {
            for (at, mut part) in chunks(index, prompt, paces[index]).into_iter().enumerate() {
                if steps.len() <= at + index {
                    steps.resize(at + index + 1, Vec::new());
                }
                steps[at + index].append(&mut part);
            }
        }
        let mut cache = model.new_cache(200, 5).unwrap();
        assert_eq!(
            run(&mut model, &mut cache, &sequences, &steps),
            expected,
            "{}",
            golden.name
        );
    }
}

#[test]
fn scattered_blocks_of_any_size_give_the_bits_of_blocks_in_order() {
    each_prompt(|model, prompt, expected| {
        for block_size in [1, 3, 16, 32] {
            let mut cache = model.new_cache(100, block_size).unwrap();
            let sequence = prompt.scattered(0, 1, block_size);
            let logits = run(model, &mut cache, &[sequence], &[whole(prompt)]);
            assert_eq!(logits[0], expected, "blocks of {block_size}");
        }
    });
}

#[test]
fn a_preempted_prompt_computes_the_same_bits_again_in_a_used_cache() {
    each_prompt(|model, prompt, expected| {
        let mut cache = model.new_cache(40, 4).unwrap();
        let first = [prompt.in_order(4)];
        run(model, &mut cache, &first, &[whole(prompt)]);
        // Its blocks now hold stale keys; the second run takes them in another order.
        let mut blocks = prompt.in_order(4).blocks;
        blocks.reverse();
        let second = [Sequence {
            ids: prompt.ids.clone(),
            blocks,
        }];
        assert_eq!(
            run(model, &mut cache, &second, &chunks(0, prompt, 3))[0],
            expected
        );
    });
}

#[test]
fn a_prompt_that_another_computed_and_went_on_from_gives_the_bits_of_computing_it_alone() {
    each_prompt(|model, prompt, expected| {
        let len = prompt.ids.len();
        for (block_size, shared) in [(16, len / 2), (7, len - 1), (5, 3), (1, len / 3)] {
            if shared == 0 || shared >= len {
                continue;
            }
            let backwards: Vec<u32> = prompt.ids.iter().rev().copied().collect();
            // The first goes on from the shared beginning in its own way.
            let first = Prompt {
                ids: [&prompt.ids[..shared], &backwards].concat(),
                ..Prompt::default()
            }
            .in_order(block_size);
            // Whole blocks of the beginning stand in both tables; one that is not full is copied.
            let full = shared / block_size;
            let foreign = first.blocks.len() as u32;
            let mut second = prompt.in_order(block_size);
            for block in &mut second.blocks[full..] {
                *block += foreign;
            }
            let copies = match shared.is_multiple_of(block_size) {
                true => Vec::new(),
                false => vec![first.blocks[full], second.blocks[full]],
            };
            let blocks = foreign as usize + second.blocks.len();
            let mut cache = model.new_cache(blocks, block_size).unwrap();
            // What will be copied to holds another's keys.
            let before = Sequence {
                ids: backwards,
                blocks: (foreign..blocks as u32).collect(),
            };
            run(model, &mut cache, &[before], &[whole(prompt)]);
            let sequences = [first, second];
            // Before the copy it has written beyond the shared tokens, and it goes on to in the same step.
            let ahead = shared + 1;
            run(model, &mut cache, &sequences, &[vec![(0, 0..ahead)]]);
            let mut logits = vec![Vec::new(); 2];
            let parts = [(0, ahead..ahead + 1), (1, shared..len)];
            run_after_copies(model, &mut cache, &sequences, &parts, &copies, &mut logits);
            assert_eq!(
                logits[1],
                expected[shared..],
                "blocks of {block_size}, {shared} of {len} tokens shared"
            );
        }
    });
}

struct Golden {
    name: String,
    folder: PathBuf,
    prompts: Vec<Prompt>,
}

#[derive(Default)]
struct Prompt {
    ids: Vec<u32>,
    /// Positions whose logits are recorded.
    positions: Vec<usize>,
    logits: Vec<Vec<f32>>,
    argmax: Vec<usize>,
}

impl Prompt {
    fn in_order(&self, block_size: usize) -> Sequence {
        let blocks = 0..self.ids.len().div_ceil(block_size) as u32;
        Sequence {
            ids: self.ids.clone(),
            blocks: blocks.collect(),
        }
    }

    /// Every `of`-th block from the end, beginning at the `nth`: no two neighbours in order.
    fn scattered(&self, nth: u32, of: u32, block_size: usize) -> Sequence {
        let count = self.ids.len().div_ceil(block_size) as u32;
        Sequence {
            ids: self.ids.clone(),
            blocks: (0..count).rev().map(|block| block * of + nth).collect(),
        }
    }
}

fn each_prompt(check: impl Fn(&mut Mixtral, &Prompt, Vec<Vec<f32>>)) {
    for golden in goldens() {
        let mut model = load(&golden.folder, 128);
        for prompt in &golden.prompts {
            let expected = alone(&mut model, prompt, &[whole(prompt)]);
            check(&mut model, prompt, expected);
        }
    }
}

fn alone(model: &mut Mixtral, prompt: &Prompt, steps: &[Vec<Part>]) -> Vec<Vec<f32>> {
    let mut cache: KvCache = model.new_cache(20, 16).unwrap();
    run(model, &mut cache, &[prompt.in_order(16)], steps).remove(0)
}

fn whole(prompt: &Prompt) -> Vec<Part> {
    vec![(0, 0..prompt.ids.len())]
}

fn chunks(index: usize, prompt: &Prompt, size: usize) -> Vec<Vec<Part>> {
    let len = prompt.ids.len();
    (0..len)
        .step_by(size)
        .map(|at| vec![(index, at..len.min(at + size))])
        .collect()
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best })
}

fn goldens() -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root.join("goldens"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.retain(|folder| folder.join("golden.safetensors").exists());
    folders.sort();
    let seedling = folders.iter().any(|folder| folder.ends_with("seedling"));
    assert!(
        folders.len() >= 7 && seedling,
        "{} goldens in models/goldens",
        folders.len()
    );
    folders
        .into_iter()
        .map(|folder| golden(&folder, &root))
        .collect()
}

fn golden(folder: &Path, root: &Path) -> Golden {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let tensors =
        candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap();
    let prompts = (0..)
        .map_while(|index| {
            let tensor = |field: &str| tensors.get(&format!("prompt_{index}.{field}"));
            let integers = |tensor: &Tensor| tensor.to_vec1::<i64>().unwrap();
            Some(Prompt {
                ids: integers(tensor("input_ids")?)
                    .into_iter()
                    .map(|id| id as u32)
                    .collect(),
                positions: integers(tensor("positions")?)
                    .into_iter()
                    .map(|at| at as usize)
                    .collect(),
                logits: tensor("logits")?.to_vec2().unwrap(),
                argmax: integers(tensor("argmax")?)
                    .into_iter()
                    .map(|at| at as usize)
                    .collect(),
            })
        })
        .collect();
    // The seedling's golden lies beside the others, its weights where the binary takes them from.
    let folder = if folder.join("config.json").exists() {
        folder.into()
    } else {
        root.join(&name)
    };
    Golden {
        name,
        folder,
        prompts,
    }
}
