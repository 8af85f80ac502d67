//! Mistakes in a recipe.

use crate::fixture::Fixture;

#[test]
fn mistakes_in_a_recipe() {
    let cases = [
        ("net.yaml", "heads: 4", "heads: «5", "@: `dit.heads` must divide the width: 16 is no multiple of 5"),
        ("net.yaml", "patch: 2", "patch: «3", "@: `dit.patch` must divide the image: 8 is no multiple of 3"),
        (
            "net.yaml",
            "label_dropout: 0.0",
            "label_dropout: «0.1",
            "@: `dit.label_dropout` must be 0 without classes: there is no label to drop",
        ),
        (
            "net.yaml",
            "classes: null\n  label_dropout: 0.0\n  learn_sigma: true\ndata: {kind: faces, image_size: 8, first: 0, count: 100}",
            "classes: 10\n  label_dropout: 0.0\n  learn_sigma: true\ndata: «{kind: image_folder, image_size: 8, folder: f}",
            "@: `data` has no labels, but the backbone is class-conditional",
        ),
        (
            "net.yaml",
            "warmup_iterations: 2",
            "warmup_iterations: «11",
            "@: `optimisation.warmup_iterations` must be at most the iterations (10), found `11`",
        ),
        ("net.yaml", "timesteps: 1000", "timesteps: «1", "@: `diffusion.timesteps` must be at least 2, found `1`"),
        (
            "net.yaml",
            "timesteps: 1000",
            "timesteps: «100000000000",
            "@: `diffusion.timesteps` must be at most 1000000, found `100000000000`",
        ),
        (
            "net.yaml",
            "first: 0",
            "first: «18446744073709551615",
            "@: `data.first` must be at most 1000000000000, found `18446744073709551615`",
        ),
        (
            "net.yaml",
            "  learn_sigma: true",
            "  text_width: «16\n  learn_sigma: true",
            "@: `dit.text_width` needs an encoder: `text: {kind: clip_formula, ...}` or `{kind: clip, ...}`",
        ),
        (
            "net.yaml",
            "  learn_sigma: true",
            "  learn_sigma: true\ntext: «{kind: clip_formula, width: 16, depth: 1, heads: 4}",
            "@: `text` has embeddings of width 16: the network must say `dit.text_width: 16`, found none",
        ),
        (
            "net.yaml",
            "  learn_sigma: true",
            "  learn_sigma: true\n  text_width: 16\ntext: {kind: clip_formula, width: 16, depth: 1, heads: «3}",
            "@: `text.heads` must divide the width: 16 is no multiple of 3",
        ),
        (
            "net.yaml",
            "classes: null\n  label_dropout: 0.0\n  learn_sigma: true",
            "classes: 4\n  label_dropout: 0.0\n  learn_sigma: true\n  text_width: «16\ntext: {kind: clip_formula, width: 16, depth: 1, heads: 4}",
            "@: `dit.text_width` takes the place of classes: leave it out, or set `classes: null`",
        ),
        (
            "net.yaml",
            "  learn_sigma: true\ndata: {kind: faces, image_size: 8, first: 0, count: 100}",
            "  learn_sigma: true\n  text_width: 16\ntext: {kind: clip_formula, width: 16, depth: 1, heads: 4}\ndata: «{kind: image_folder, image_size: 8, folder: f}",
            "@: `data` has no captions, but the backbone is conditioned on text; use `kind: captions`, `web_dataset` or `faces`",
        ),
        (
            "net.yaml",
            "schedule: cosine, timesteps: 1000",
            "schedule: linear, timesteps: «20",
            "@: `diffusion.timesteps` must be at least 21 with this schedule, found `20`",
        ),
        (
            "net.yaml",
            "schedule: cosine",
            "schedule: «cosin",
            "@: unknown value `cosin` for `diffusion.schedule`; allowed: linear, scaled_linear, cosine; did you mean `cosine`?",
        ),
        (
            "net.yaml",
            "recipe: backbone",
            "recipe: «backbon",
            "@: unknown value `backbon` for `recipe`; allowed: backbone, unet, extractor; did you mean `backbone`?",
        ),
        (
            "cnn.yaml",
            "widths: [4, 8]",
            "widths: «[4, 8, 8, 8, 8]",
            "@: `extractor.widths` halves a side of 8 4 times: nothing is left",
        ),
        ("cnn.yaml", "widths: [4, 8]", "widths: [4, «0]", "@: `extractor.widths[1]` must be at least 1, found `0`"),
        (
            "cnn.yaml",
            "target: factors}\ndata: {kind: faces, image_size: 8, first: 100, count: 100}",
            "target: «labels}\ndata: {kind: image_folder, image_size: 8, folder: f}",
            "@: `extractor.target` can be `labels` for labelled images only; use `factors`",
        ),
    ];
    for (file, right, wrong, expected) in cases {
        Fixture::expect(file, right, wrong, expected);
    }
}
