# A thin face over cargo and scripts/; each target is one command that can be typed by itself.
.DEFAULT_GOAL := help
.PHONY: help demo test test-long bench deny tools

help: ## Print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: ## Build, then show the whole story on 100,000 receipts
	cargo build --release --locked -p attestore -p aegisagent-example
	examples/aegisagent/demo.sh

test: ## Everything that CI checks: format, lints, docs, tests, the documents' own commands
	scripts/test.sh

test-long: ## The same with the long crash, property and fuzz runs
	ATTESTORE_LONG=1 scripts/test.sh

bench: ## Measure against the stock tools, as ratios in one run
	cargo bench --locked -p benches

deny: ## Check licences, bans and sources of dependencies (wants cargo-deny)
	cargo deny --locked check licenses bans sources

tools: ## Install the stock tools that the tests compare against
	scripts/install-tools.sh
