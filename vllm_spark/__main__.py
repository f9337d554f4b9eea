"""`python -m vllm_spark`: the program `vllm-spark`, from a checkout."""

from vllm_spark.cli.main import run

if __name__ == "__main__":
    run()
