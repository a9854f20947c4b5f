from tidemark import stage0

stage0.run()
