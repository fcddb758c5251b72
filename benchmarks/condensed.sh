#!/bin/sh
# The rows of reports/results whose condensers changed: dm, and dc and dsa where a net is trained between two steps.
#
#     sh benchmarks/condensed.sh FOLDER        with clsim on the path; or: make condensed
#
# FOLDER gets a CSV file for each table, the sets and the runs. A set or a run that is there is not made again, so that
# a stopped call goes on. All other rows (random, herding, kcenter, dcc, idc, acc-dd, and dc and dsa with 1 image a
# class) are made by unchanged code. The seconds are of one core, for each row, its nets with it. Beyond these 45 minutes
# there is one row of 35: clsim run --scenario split-cifar100 --buffer dm --memory 500.
set -eu
out=${1:?a folder}
mkdir -p "$out"
export OMP_NUM_THREADS=1

made() { # made TABLE NAME OPTION …
    table=$1 name=$2
    shift 2
    [ -e "$out/$name.npz" ] || clsim condense "$@" --per-class 500 --proxy-epochs 5 --size 16 --model-option width=32 \
        --no-picture --csv "$out/$table.csv" --out "$out/$name.npz"
}

for seed in 0 1 2; do
    for data in cifar10 fashion-mnist; do
        dm="--dataset $data --method dm --seed $seed --option real=64 --option"
        made condense $data-dm-1-$seed $dm iterations=300 --ipc 1 --nets 2 --epochs 1000    # 22 s
        made condense $data-dm-10-$seed $dm iterations=300 --ipc 10 --nets 1 --epochs 1000  # 50 s
        made condense $data-dm-50-$seed $dm iterations=150 --ipc 50 --nets 1 --epochs 300   # 57 s
        for method in dc dsa; do                                                            # 90 s
            made condense $data-$method-10-$seed --dataset $data --method $method --seed $seed --ipc 10 --nets 1 \
                --epochs 1000 --option iterations=30 --option steps=10 --option epochs=5 --option real=32 \
                --option start=herding --option net_lr=0.1
        done
    done
done

for seed in 0 1 2 3 4; do                                                                   # 26 s
    made condense-close close-dc-$seed --dataset fashion-mnist --method dc --seed $seed --ipc 1 --nets 3 \
        --classes 0,2,4,6 --option iterations=12 --option steps=10 --option epochs=5 --option real=32 --option start=real
done

# DM's continual protocol, reduced: nets of width 32 at 16 px, 250 images a class, 40 epochs on memory; 60, 95, 115 s
for seed in 0 1; do
    for buffer in random herding "dm --set memory.options.iterations=100 --set memory.options.real=32 --set memory.options.model="; do
        clsim run --scenario condense-cifar100-5x20 --strategy gdumb --buffer $buffer --seed $seed --runs "$out/runs" \
            --set data.size=16 --set data.per_class=250 --set model.options.width=32 --set optimizer.lr=0.02 \
            --set learner.options.epochs=40 --set learner.options.batch_size=64 --set proxy.epochs=5
    done
done
clsim report condensation --runs "$out/runs" --format runs > "$out/condensation.csv"
