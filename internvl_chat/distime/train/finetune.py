"""The fine-tuning entry point, of the cluster scripts and of the quickstart alike.

torchrun --nproc_per_node 8 -m distime.train.finetune --model_name_or_path ... --meta_path ...
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from transformers import set_seed

from distime.backbones import DisTimeForConditionalGeneration
from distime.data.dataset import DataSettings, TrainingData
from distime.data.lengths import KeptLengths
from distime.data.plan import PlannedRows, PlanSettings, make_plan, repeat_steps
from distime.errors import DisTimeError
from distime.files import file_digest
from distime.processing.processor import DisTimeProcessor
from distime.provenance import PACKAGES, git_commit, versions
from distime.train import objectives, speed
from distime.train.arguments import (
    ArgumentError,
    DataArguments,
    ModelArguments,
    TrainArguments,
    parse,
)
from distime.train.cached_features import use_cached_features
from distime.train.checkpoints import (
    RunRecord,
    checkpoint_to_resume,
    complete_checkpoints,
    digest_names,
)
from distime.train.command_line import pairs
from distime.train.distributed import (
    gather_weights,
    leave_process_group,
    prepare_resume,
    whole_model,
)
from distime.train.evaluation import HeldOut
from distime.train.export import Exporter
from distime.train.lora import select_trainable
from distime.train.resume import Schedule, changed_flags, check_rates, recorded_flags
from distime.train.trainer import DisTimeTrainer, TrainingError

logger = logging.getLogger(__name__)


def load_model(
    arguments: ModelArguments, training: TrainArguments, tokens: int = DataSettings.max_seq_length
) -> DisTimeForConditionalGeneration:
    """Load the start checkpoint with the flags' changes, and choose what is trained.

    Args:
        arguments: what it is and what is trained.
        training: how.
        tokens: most of one row.

    Raises:
        ArgumentError: a flag contradicts trained time modules.
    """
    # DeepSpeed keeps float32 masters itself; elsewhere the trained weights are their own.
    half = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else torch.float32
    with whole_model(training):
        model = DisTimeForConditionalGeneration.from_pretrained(
            arguments.model_name_or_path,
            dtype=half if training.deepspeed else torch.float32,
            attn_implementation=arguments.attn_implementation,
            config_overrides=arguments.config_overrides,
        )
        select_trainable(model, arguments)
    if training.bf16 and not training.deepspeed and not training.fsdp:
        speed.narrow_frozen(model, exact=arguments.export_dtype == "float32")
    speed.advise(model, training, tokens)
    speed.apply(model, training)
    return model


def token_lengths(data: TrainingData, training: TrainArguments) -> list[int]:
    """Tokens of every group: as an earlier run kept them, else each process counts its share."""
    rank, world_size = training.process_index, training.world_size
    kept = KeptLengths(data, Path(training.output_dir)) if rank == 0 else None
    (known,) = broadcast_object_list([kept and kept.load()])
    if known is not None:
        return known
    bounds = [len(data) * part // world_size for part in range(world_size + 1)]
    share = data.lengths(range(*bounds[rank : rank + 2]), show_progress=rank == 0)
    lengths = [length for part in gather_object([share]) for length in part]
    if kept:
        kept.save(lengths)
    return lengths


def plan_rows(
    data: TrainingData, arguments: DataArguments, training: TrainArguments
) -> PlannedRows:
    """Decide every row of the run, for all epochs and ranks.

    Raises:
        ArgumentError: the data are too few for a single step.
    """
    rows_per_step = training.rows_per_step
    wanted = training.max_steps * rows_per_step if training.max_steps > 0 else None
    settings = PlanSettings(
        epochs=math.ceil(wanted / len(data)) if wanted else training.num_train_epochs,
        seed=training.seed,
        group_by_length=training.group_by_length,
        packed_length=arguments.max_seq_length if arguments.packing else None,
        rows_per_step=rows_per_step,
    )
    needs_lengths = training.group_by_length or arguments.packing
    lengths = token_lengths(data, training) if needs_lengths else None
    plan = make_plan(len(data), settings, lengths)
    while wanted and len(plan) < wanted:  # a packed row takes several groups
        settings = replace(settings, epochs=2 * settings.epochs)
        plan = make_plan(len(data), settings, lengths)
    plan = plan[:wanted]
    steps = len(plan) // rows_per_step
    if steps == 0:
        raise ArgumentError(
            f"the data make {len(plan)} rows, but one step takes {rows_per_step}: lower BATCH_SIZE "
            "(--per_device_train_batch_size x --gradient_accumulation_steps x processes), best so "
            "far that there are many steps, or raise --num_train_epochs"
        )
    if left := len(plan) - steps * rows_per_step:
        logger.info("the last %d rows do not fill a step and are left out", left)
    repeats = training.num_iterations or 1
    plan = repeat_steps(plan[: steps * rows_per_step], rows_per_step, repeats)
    return PlannedRows(data, plan[:wanted], repeats)


def read_held_out(
    processor: DisTimeProcessor, arguments: DataArguments, training: TrainArguments
) -> HeldOut | None:
    """Read the questions that training is evaluated on, if there are any."""
    if not training.eval_path:
        return None
    return HeldOut(
        training.eval_path,
        processor,
        num_frames=None if processor.settings.fps else arguments.max_num_frame,
        batch_size=training.per_device_eval_batch_size,
        limit=training.eval_limit,
        max_new_tokens=training.eval_max_new_tokens,
    )


def run(arguments: ModelArguments, data_arguments: DataArguments, training: TrainArguments) -> None:
    """Fine-tune and write the trained model and its processor to `--output_dir`."""
    began = time.time()
    flags = recorded_flags(arguments, data_arguments, training)
    speed.check(arguments, data_arguments, training)
    objective = objectives.find(training.objective)(training)
    objective.check(arguments, data_arguments, training)
    if training.cpu_threads:
        torch.set_num_threads(training.cpu_threads)
    set_seed(training.seed)
    processor = DisTimeProcessor.from_pretrained(arguments.model_name_or_path)
    speed.check_backbone(processor, arguments, data_arguments, training)
    overrides = data_arguments.processor_overrides
    if arguments.time_head is not None:
        overrides["time_head"] = arguments.time_head
    processor.settings = replace(processor.settings, **overrides)
    processor.adjust(**data_arguments.frame_settings(processor.settings))
    model = load_model(arguments, training, data_arguments.max_seq_length)
    if data_arguments.image_size is not None:
        processor.fit(model.config)
    processor.check_model(model.config)
    objective.attach(model, processor)
    data = TrainingData(data_arguments.meta_path, processor, data_arguments.settings)
    held_out = read_held_out(processor, data_arguments, training)
    if data_arguments.cache_features:
        use_cached_features(model, data, training)
    rows = plan_rows(data, data_arguments, training)
    exporter = Exporter(model, processor, arguments, result_dtype(arguments, training))
    record = record_of_run(rows, exporter, flags, training)
    checkpoint = checkpoint_to_resume(training, record)
    first = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
    check_rates(training, record.schedule, first, len(rows))
    training.num_train_epochs = 1  # the plan already holds all epochs
    trainer = DisTimeTrainer(
        model=model,
        args=training,
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=objective.collator(processor),
        exporter=exporter,
        record=record,
        objective=objective,
        max_bad_samples=data_arguments.max_bad_samples,
    )
    if checkpoint:
        logger.info("going on from %s", checkpoint)
        exporter.check_base(checkpoint)
        prepare_resume(checkpoint, training)
    before = weight_sums(model)
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    logger.info("%s", trainer.summary())
    if first < record.schedule.end and weight_sums(model) == before is not None:
        raise TrainingError(
            f"{record.schedule.end - first} steps have changed no weight, so that nothing is "
            "written: raise --learning_rate, or see whether the samples have anything to learn for "
            "what is trained (--freeze_llm, --freeze_backbone, --freeze_mlp, --train_embeddings)"
        )
    gather_weights(model, trainer.is_world_process_zero())
    if trainer.is_world_process_zero():
        description = {
            "start_checkpoint": arguments.model_name_or_path,
            "flags": changed_flags(flags),
            "data": record.sources,
            "resumed_from": checkpoint and checkpoint.name,
            "processes": training.world_size,
            "seconds": round(time.time() - began, 1),
            **trainer.outcome(),
            "git_commit": git_commit(),
            "versions": versions((*PACKAGES, "accelerate", "peft", "deepspeed")),
        }
        exporter.write_result(Path(training.output_dir), description)


def result_dtype(arguments: ModelArguments, training: TrainArguments) -> torch.dtype | None:
    """Return the precision that `--export_dtype` asks for; None for that of training."""
    if arguments.export_dtype != "auto":
        return getattr(torch, arguments.export_dtype)
    return torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None


def weight_sums(model: torch.nn.Module) -> list[float] | None:
    """Sum each trained parameter, to see whether training changed it; None if ZeRO-3 has it."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(hasattr(parameter, "ds_id") for parameter in trained):
        return None
    return [parameter.detach().sum(dtype=torch.float64).item() for parameter in trained]


def record_of_run(
    rows: PlannedRows, exporter: Exporter, flags: dict[str, Any], training: TrainArguments
) -> RunRecord:
    """Note what decides which samples a step takes and what is trained, for `--resume`.

    Args:
        rows: of the run.
        exporter: of its model.
        flags: of `recorded_flags`.
        training: the same, as they are now.
    """
    sources = zip(rows.data.sources, rows.data.indices, strict=True)
    steps = training.max_steps if training.max_steps > 0 else len(rows) // training.rows_per_step
    return RunRecord(
        rows_per_step=training.rows_per_step,
        samples_until=rows.samples_until,
        parameters=digest_names(
            f"{name} {tuple(parameter.shape)}"
            for name, parameter in exporter.model.named_parameters()
            if parameter.requires_grad
        ),
        flags=flags,
        sources={
            one.name: {
                "number of items": len(index),
                "repeat_time": one.repeat_time,
                "annotation digest": file_digest(one.annotation),
            }
            for one, index in sources
        },
        schedule=Schedule(steps, steps),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse a command line, fine-tune, and return the exit code.

    Returns:
        0; 2 if a flag or a file is wrong; 1 if training cannot go on; 130 if it was interrupted.
        Any other exception is a defect, and is raised.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("distime").setLevel(logging.INFO)
    logger.setLevel(logging.INFO)  # run with -m, this module has another name
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        *arguments, training = parse(argv)
    except DisTimeError as error:
        logger.error("%s", error)
        return 2
    if training.process_index:
        for name in ("distime", logger.name):  # the first process says what all would say
            logging.getLogger(name).setLevel(logging.WARNING)
    try:
        run(*arguments, training)
    except TrainingError as error:
        if not training.process_index:  # all processes stop with the same message
            logger.error("%s", error)
        return 1
    except DisTimeError as error:
        logger.error("%s", error)
        return 2
    except KeyboardInterrupt:
        if not training.process_index:
            logger.error("%s", how_to_go_on(Path(training.output_dir), argv))
        return 130
    return 0


def how_to_go_on(folder: Path, argv: Sequence[str]) -> str:
    """Say what is left of an interrupted run, and the command with which it goes on.

    Args:
        folder: `--output_dir`.
        argv: the command line.
    """
    found = complete_checkpoints(folder)
    if not found:
        return (
            f"interrupted; {folder} holds no checkpoint yet (--save_steps), so that the same "
            "command starts anew"
        )
    is_launched = "TORCHELASTIC_RUN_ID" in os.environ  # by a script, with its own variables
    words = "the same command" if is_launched else shlex.join(["distime", "train", *argv])
    if ("resume", ["auto"]) not in pairs(argv):
        words += ", with --resume auto" if is_launched else " --resume auto"
    return f"interrupted; to go on from checkpoint-{max(found)}: {words}"


if __name__ == "__main__":
    code = main()
    if code == 0:  # processes that fail need not all come here
        leave_process_group()
    sys.exit(code)
