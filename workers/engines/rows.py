"""Convert a request to rows, one for each choice: prompt tokens, sampling, grammar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from registry.catalog.generation import MAX_CHOICES, GenerationInputs, SamplingOptions
from workers.engines.batch import Row
from workers.engines.choices import Choices
from workers.engines.control_tokens import ControlTokenCheck
from workers.engines.grammars import (
    Constraint,
    Vocabulary,
    call_grammar,
    grammar_refused,
    json_grammar,
)
from workers.engines.prompts import PromptProcesses
from workers.engines.protocol import EngineRequest, RequestRefused, Sink
from workers.engines.sampling import DEFAULT_MAX_TOKENS, Sampling
from workers.engines.shaping import Shaper
from workers.engines.text import TextStream
from workers.engines.tool_calls import CallForm, CallReader, form_of
from workers.engines.vision import ImageReader


class RowMaker:
    """Makes the rows of one model's requests. Any number of threads may call `rows`.

    Args:
        tokenizer: A fast tokenizer of transformers.
        prompts: Processes that render and tokenize.
        vocabulary: Tokenizer for grammars.
        images: Reads images; None for a text-only model.
        max_context: Prompt and answer together, in tokens.
        virtual_tokens: Returns the number of positions that an adapter fills before each prompt.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompts: PromptProcesses,
        vocabulary: Vocabulary,
        images: ImageReader | None,
        max_context: int,
        virtual_tokens: Callable[[str | None], int],
    ) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._control = ControlTokenCheck(tokenizer, prompts)
        self._vocabulary = vocabulary
        self._images = images
        self._max_context = max_context
        self._virtual_tokens = virtual_tokens

    def rows(self, request: EngineRequest, sink: Sink) -> list[Row]:
        """Return the rows of a request, one for each choice. Raises RequestRefused."""
        inputs, options = request.inputs, request.options
        if not isinstance(inputs, GenerationInputs) or not isinstance(options, SamplingOptions):
            raise RequestRefused("This model generates text from messages or a prompt.")
        sampling = Sampling.of(options)
        inputs = self._control.neutralize(request.request_id, inputs)
        images = self._pixels(inputs)
        prompts = self._encoded(request.request_id, inputs)
        if self._images is not None:
            prompts = [self._images.expand(prompt, len(images)) for prompt in prompts]
        if virtual := self._virtual_tokens(request.adapter):
            if options.echo:
                raise RequestRefused("A soft prompt has no text to repeat; leave echo out.")
            # Virtual tokens fill positions, and are counted and charged, like any other token.
            places = [self._tokenizer.pad_token_id] * virtual
            prompts = [places + prompt for prompt in prompts]
        if len(prompts) * options.made > MAX_CHOICES:
            raise RequestRefused(
                f"{len(prompts)} prompts with {options.made} choices each are more than "
                f"{MAX_CHOICES} choices."
            )
        room = self._max_context - max(map(len, prompts))
        requested = 1 if sampling.max_tokens is None else sampling.max_tokens
        if room < requested:
            raise RequestRefused(
                f"The prompt has {max(map(len, prompts))} tokens and the answer may have "
                f"{requested}; together they must not exceed {self._max_context}.",
                code="context_length_exceeded",
            )
        reference = self._reference(request.request_id, options)
        limit = min(DEFAULT_MAX_TOKENS, room) if sampling.max_tokens is None else requested
        form, grammar = self._requested_form(request.request_id, inputs, options)
        self._check_biases(options)
        choices = Choices(sink, sum(map(len, prompts)), len(prompts), options.made, options.choices)
        return [
            Row(
                request_id=request.request_id,
                adapter=request.adapter,
                prompt=prompt,
                limit=limit,
                sampling=sampling,
                text=TextStream(self._tokenizer, sampling.stop),
                choices=choices,
                generator=sampling.generator(place * options.made + number),
                index=place * options.made + number,
                shaper=Shaper.of(options, self._constraint(grammar, inputs, options)),
                calls=self._reader(form, inputs, options),
                images=list(images),
                reference=reference[:room],
                reference_cut=len(reference) > room,
                echo=self._echo(inputs, place, prompt) if options.echo else None,
                options=options,
                grammar=grammar,
            )
            for place, prompt in enumerate(prompts)
            for number in range(options.made)
        ]

    def _encoded(self, request_id: str, inputs: GenerationInputs) -> list[list[int]]:
        """Return the tokens of each prompt. Raises RequestRefused."""
        if inputs.prompts is None:
            return [self._prompts.encode(request_id, inputs)]
        texts = [prompt for prompt in inputs.prompts if isinstance(prompt, str)]
        if texts:
            encoded = self._prompts.encode_texts(request_id, texts)
            if not all(encoded):
                raise RequestRefused("A prompt is empty.")
            return encoded
        prompts = [list(prompt) for prompt in inputs.prompts if not isinstance(prompt, str)]
        if max(map(max, prompts)) >= len(self._tokenizer):
            raise RequestRefused(f"A prompt has a token beyond {len(self._tokenizer) - 1}.")
        return prompts

    def _reader(
        self, form: CallForm | None, inputs: GenerationInputs, options: SamplingOptions
    ) -> CallReader | None:
        if form is None:
            return None
        names = [tool.name for tool in inputs.tools]
        return CallReader(form, names, single=not options.parallel_tool_calls)

    def _echo(self, inputs: GenerationInputs, place: int, prompt: list[int]) -> str:
        source = inputs.prompt if inputs.prompts is None else inputs.prompts[place]
        return source if isinstance(source, str) else str(self._tokenizer.decode(prompt))

    def _check_biases(self, options: SamplingOptions) -> None:
        for token in options.logit_bias:
            if int(token) >= self._vocabulary.size:
                raise RequestRefused(
                    f"logit_bias names token {token}; this model's last is "
                    f"{self._vocabulary.size - 1}."
                )

    def _requested_form(
        self, request_id: str, inputs: GenerationInputs, options: SamplingOptions
    ) -> tuple[CallForm | None, str | None]:
        """Return the form of the tool calls to read, and the grammar of the answer."""
        grammar = None if options.json_schema is None else json_grammar(options.json_schema)
        form = None
        if inputs.tools:
            form = form_of(self._prompts.template)
            if form is None:
                raise RequestRefused(
                    "This model's chat template writes tool calls in an unknown form; leave tools "
                    "out.",
                    code="tools_unsupported",
                )
            if options.tool_choice == "required" or any(tool.strict for tool in inputs.tools):
                grammar = self._call_grammar(form, inputs, options)
        if grammar is not None and (reason := self._prompts.check_grammar(request_id, grammar)):
            raise grammar_refused(reason)
        return form, grammar

    def _call_grammar(
        self, form: CallForm, inputs: GenerationInputs, options: SamplingOptions
    ) -> str:
        free = options.tool_choice == "auto"
        if free and not form.opening:
            raise RequestRefused(
                "This model's calls have no opening mark, so strict tools need tool_choice "
                '"required" or a named function.',
                code="tools_unsupported",
            )
        return call_grammar(
            form,
            [tool for tool in inputs.tools if options.tool_name in (None, tool.name)],
            single=not options.parallel_tool_calls or options.tool_name is not None,
            token=self._tokenizer.get_added_vocab().get(form.token),
            free=free,
        )

    def _constraint(
        self, grammar: str | None, inputs: GenerationInputs, options: SamplingOptions
    ) -> Constraint | None:
        if grammar is None:
            return None
        schemas = [tool.parameters for tool in inputs.tools]
        if options.json_schema is not None:
            schemas.append(options.json_schema)
        calls = options.tool_choice == "required"
        return Constraint(self._vocabulary, grammar, schemas, calls=calls)

    def _pixels(self, inputs: GenerationInputs) -> list[Tensor]:
        """Return the pixels of the request's images. Raises RequestRefused."""
        if self._images is not None:
            return self._images.read(inputs.images)
        if any(not isinstance(each.content, str) for each in inputs.messages or ()):
            raise RequestRefused("This model reads only text; leave the images out.")
        return []

    def _reference(self, request_id: str, options: SamplingOptions) -> list[int]:
        if options.reference is None:
            return []
        (tokens,) = self._prompts.encode_texts(
            request_id, [options.reference], special_tokens=False
        )
        return [*tokens, self._tokenizer.eos_token_id] if options.reference_ends else tokens
