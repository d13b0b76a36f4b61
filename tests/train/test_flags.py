"""A command line is checked by name, value and effect before torch is imported."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments

from distime.cli import train as command
from distime.data.dataset import DataSettings
from distime.train import finetune, flags
from distime.train.arguments import TrainArguments, parse
from distime.train.command_line import check
from distime.train.flags import FURTHER, GROUPS, INHERITED, LIMITS, ArgumentError, DataFlags
from distime.train.published_flags import NARROWED, PUBLISHED, TABLE, WITHOUT_EFFECT
from tiny_runs import LAUNCH, command_line

ROOT = Path(__file__).resolve().parents[2]

# As published: josephzpng/DisTime, shell/distime/internvl2_5_1b_..._lora.sh
DISTIME_1B = """
  --conv_style internvl2_5 --use_fast_tokenizer False --overwrite_output_dir True
  --force_image_size 448 --max_dynamic_patch 6 --down_sample_ratio 0.5 --drop_path_rate 0.0
  --min_num_frame 16 --max_num_frame 16 --layer_num 3 --freeze_llm True --freeze_mlp True
  --dec_reg 32 --enc_sigma 1.0 --freeze_backbone True --use_llm_lora 16 --vision_select_layer -1
  --dataloader_num_workers 4 --bf16 True --num_train_epochs 1 --per_device_train_batch_size 1
  --gradient_accumulation_steps 16 --evaluation_strategy no --save_strategy steps
  --save_steps 1000 --save_total_limit 1 --learning_rate 4e-5 --weight_decay 0.01
  --warmup_ratio 0.03 --lr_scheduler_type cosine --logging_steps 1 --max_seq_length 8192
  --do_train True --grad_checkpoint True --group_by_length True --dynamic_image_size True
  --use_thumbnail True --ps_version v2 --report_to none
""".split()  # noqa: SIM905
# Besides, in OpenGVLab/InternVL, shell/internvl2.5/stage2/internvl2_5_1b_..._stage2.sh
STAGE_2 = """
  --use_packed_ds True --num_images_expected 48 --max_packed_tokens 16384 --max_buffer_size 20
  --log_freq 1000 --strict_mode False --replacement False --allow_overflow False
  --remove_unused_columns False --loss_reduction_all_gather True
""".split()  # noqa: SIM905


def test_the_published_script_runs_as_it_stands(workspace, tmp_path):
    words = command_line(workspace, tmp_path, *DISTIME_1B, *STAGE_2)
    model, data, training = parse(words)
    assert (training.warmup_steps, training.gradient_checkpointing) == (0.03, True)
    assert (training.eval_strategy.value, training.learning_rate) == ("no", 4e-5)
    assert data.processor_overrides == {"max_tiles": 6, "use_thumbnail": True}
    assert (data.packing, model.use_llm_lora, model.dec_reg) == (True, 16, 32)


def test_every_flag_that_is_translated_or_left_out_is_named():
    _, notes = check(DISTIME_1B + STAGE_2)
    said = "\n".join(notes)
    assert "--warmup_ratio 0.03 is taken as --warmup_steps 0.03" in said
    for name in ("overwrite_output_dir", "max_buffer_size", "use_fast_tokenizer"):
        assert f"--{name}" in said
    assert "--resume auto" in said


@pytest.mark.parametrize(
    ("words", "mend"),
    [
        ("--force_image_size 224", "processor_config.json"),
        ("--drop_path_rate 0.1", "no stochastic depth"),
        ("--use_backbone_lora 8", "--use_llm_lora"),
        ("--llm_path x", "--model_name_or_path"),
        ("--warmup_ratio 1", "from 0 to below 1"),
        ("--logging_dir x", "TENSORBOARD_LOGGING_DIR"),
        ("--loss_reduction square", "mean over its samples"),
        ("--label_smoothing_factor 0.1", "no label is smoothed"),
        ("--ignore_data_skip True", "would repeat samples"),
        ("--push_to_hub True", "hf upload"),
        ("--learning_rat 1", "did you mean --learning_rate?"),
        ("train.json", "a flag is expected"),
    ],
)
def test_what_would_do_nothing_is_refused_with_what_replaces_it(words, mend):
    with pytest.raises(ArgumentError) as caught:
        check(words.split())
    assert mend in str(caught.value)
    assert words.split()[0] in str(caught.value)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_rule_accepts_what_it_names_and_says_why(name):
    rule = TABLE[name]
    if rule.to is not None:
        assert rule.to in flags.known_flags()
        return
    assert rule.why
    for value in rule.same or ():
        check([f"--{name}", *([value] if value else [])])
    if rule.same is not None:
        with pytest.raises(ArgumentError, match=f"--{name}"):
            check([f"--{name}", "something else"])


def test_every_flag_of_transformers_is_ours_to_take_or_to_refuse():
    inherited = {one.name for one in fields(TrainingArguments)}
    own = {one.name for group in GROUPS for one in fields(group)}
    assert inherited - own - INHERITED.keys() - FURTHER - TABLE.keys() == {"resume_from_checkpoint"}
    assert not INHERITED.keys() & FURTHER
    assert not (own | INHERITED.keys() | FURTHER) & (PUBLISHED.keys() | WITHOUT_EFFECT.keys())
    assert inherited >= INHERITED.keys() | FURTHER | WITHOUT_EFFECT.keys() | NARROWED.keys()
    assert LIMITS.keys() <= flags.known_flags()


def test_every_own_flag_has_help_and_the_data_set_s_defaults():
    for group in GROUPS:
        assert all(one.metadata["help"] for one in fields(group))
    assert set(INHERITED.values()) and all(INHERITED.values())
    defaults = {one.name: one.default for one in fields(DataFlags)}
    for one in fields(DataSettings):
        assert defaults[one.name] == one.default, one.name


def wrong_numbers():
    """Flags that take a number, each with words that are none of its values."""
    for name, limits in LIMITS.items():
        if limits.one_of:
            continue
        words = ["nan", "inf", "-inf", "many", "", "1e999"]
        if limits.kind is int:
            words += ["1.5", "2.0", "1e3"]
        words += ["-2", "-7"] if limits.at_least is not None or limits.above is not None else []
        words += ["0"] if limits.above == 0 or limits.at_least == 1 else []
        words += [repr(bound) for bound in (limits.below,) if bound is not None]
        yield from ((name, word) for word in words)


@pytest.mark.parametrize(("name", "word"), list(wrong_numbers()))
def test_a_wrong_number_is_refused_by_the_flag_s_name(name, word):
    with pytest.raises(ArgumentError, match=rf"--{name} .*give "):
        check([f"--{name}", word])


@given(st.sampled_from(sorted(name for name in LIMITS if not LIMITS[name].one_of)), st.floats())
def test_a_number_passes_exactly_if_it_is_within_its_limits(name, number):
    limits = LIMITS[name]
    is_fine = math.isfinite(number) and (limits.kind is float or number == int(number))
    for bound, holds in (
        (limits.at_least, lambda: number >= limits.at_least),
        (limits.above, lambda: number > limits.above),
        (limits.below, lambda: number < limits.below),
    ):
        is_fine = is_fine and (bound is None or holds())
    is_fine = is_fine or number in limits.also
    word = str(int(number)) if limits.kind is int and is_fine else repr(number)
    try:
        check([f"--{name}={word}"])
    except ArgumentError:
        assert not is_fine
    else:
        assert is_fine


def test_every_number_of_transformers_has_limits():
    for one in fields(TrainArguments):
        is_number = "int" in str(one.type) or "float" in str(one.type)
        if is_number and one.name in flags.known_flags() and one.default is not MISSING:
            assert one.name in LIMITS, one.name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lr_scheduler_type", "cosin"), "invalid choice: 'cosin'"),
        (("--optim", "adam"), "--optim: invalid"),
        (("--save_strategy", "sometimes"), "--save_strategy/"),
        (("--deepspeed", "nowhere.json"), "--deepspeed nowhere.json: "),
        (("--bf16", "perhaps"), "bf16"),
        (("--lr_scheduler_kwargs", "{no json"), "Expecting property name"),
        (("--save_only_model", "True", "--resume", "auto"), "--save_only_model True"),
        (("--dataloader_prefetch_factor", "4"), "needs --dataloader_num_workers"),
        (("--text_loss_weight", 0, "--distribution_loss_weight", 0, "--iou_loss_weight", 0), "all"),
    ],
)
def test_what_transformers_refuses_is_one_line_too(workspace, tmp_path, words, message):
    with pytest.raises(ArgumentError) as caught:
        parse(command_line(workspace, tmp_path, *words))
    assert message in str(caught.value)


def test_workers_have_a_whole_step_ready(workspace, tmp_path):
    for workers, batches, ready in ((4, 16, 4), (4, 2, 2), (3, 16, 6)):
        words = ("--dataloader_num_workers", workers, "--gradient_accumulation_steps", batches)
        *_, training = parse(command_line(workspace, tmp_path, *words))
        assert training.dataloader_prefetch_factor == ready
        assert ready * workers >= batches


def test_a_defect_keeps_its_traceback(workspace, tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("a defect, not a wrong flag")

    monkeypatch.setattr(finetune, "load_model", broken)
    with pytest.raises(ValueError, match="a defect"):
        finetune.main(command_line(workspace, tmp_path))


def test_ctrl_c_ends_as_everywhere_and_says_how_to_go_on(workspace, tmp_path, monkeypatch, caplog):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "load_model", interrupted)
    assert finetune.main(command_line(workspace, tmp_path)) == 130
    assert "no checkpoint yet" in caplog.text
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "resume.json").touch()
    words = command_line(workspace, tmp_path)
    assert finetune.main(words) == 130
    assert f"from checkpoint-3: {shlex.join(['distime', 'train', *words])} --resume auto\n" in (
        caplog.text
    )


def test_typos_are_told_without_torch():
    run = (
        "import sys; from distime import cli; code = cli.main(sys.argv[1:]); "
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    words = ["train", "--model_name_or_path", "x", "--meta_path", "y", "--learning_rate", "nan"]
    done = subprocess.run(
        [sys.executable, "-c", run, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: --learning_rate nan: give more than 0\n",
    )
    run = run.replace("code = cli.main(sys.argv[1:])", "from distime.cli import train; code = 0")
    assert subprocess.run([sys.executable, "-c", run], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model_name_or_path nowhere", "--model_name_or_path nowhere: no config.json"),
        ("--model_name_or_path OpenGVLab/InternVL2_5-1B", "hf download OpenGVLab/InternVL2_5-1B"),
        ("--meta_path nowhere.json", "--meta_path nowhere.json: no such file"),
    ],
)
def test_paths_are_looked_at_with_the_flags(words, message):
    with pytest.raises(ArgumentError) as caught:
        check(words.split())
    assert message in str(caught.value)


def test_scripts_tell_of_a_typo_before_they_start_processes():
    environment = os.environ | {"PYTHON": sys.executable, "GPUS": "64", "BATCH_SIZE": "64"}
    recipe = Path(LAUNCH).with_name("internvl2_5_1b_dynamic_res_merged_stage_finetune_lora.sh")
    for script in (LAUNCH, recipe):
        done = subprocess.run(
            ["sh", script, "--max_step", "2"], env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert (
            done.stderr == "error: --max_step: there is no such flag; did you mean --max_steps?\n"
        )


def test_help_lists_our_flags(capsys):
    from distime import cli

    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = capsys.readouterr().out
    for group in GROUPS:
        assert all(f"--{one.name} " in said for one in fields(group))
    assert "--learning_rate" in said and command.TAKES_OTHER_FLAGS
