"""Word lists and fixed answers of the demo model's corpus: everything `corpus.py` fills its templates with.

All of it was written for this model; nothing is taken from a data set. In requests and questions, braces mark
what `corpus.py` fills in.
"""

from __future__ import annotations

# fmt: off

# Two disjoint pools, so that the two characters of a story can never be given the same name.
HERO_NAMES = ("Mila", "Otto", "Nora", "Finn", "Ruby", "Hugo", "Lena", "Bruno", "Zoe", "Theo")
FRIEND_NAMES = ("Iris", "Pavel", "Ada", "Emil", "Tess", "Juno", "Kira", "Leo", "Maya", "Rolf")
OTHER_NAMES = (
    "Alice", "Anna", "Anton", "Ben", "Bob", "Carla", "Clara", "Dan", "David", "Elsa", "Emma", "Erik", "Eva",
    "Felix", "Frank", "Grace", "Hana", "Henry", "Ida", "Jack", "Jana", "Jonas", "Julia", "Karl", "Kim",
    "Lara", "Lisa", "Luca", "Marco", "Maria", "Max", "Nina", "Noah", "Olga", "Oscar", "Paul", "Peter",
    "Rita", "Rosa", "Sam", "Sara", "Simon", "Sofia", "Tom", "Vera", "Viktor", "Will", "Yara",
)
NAMES = HERO_NAMES + FRIEND_NAMES + OTHER_NAMES

ANIMALS = (
    "fox", "bear", "rabbit", "owl", "mouse", "cat", "dog", "duck", "horse", "turtle", "frog", "goat",
    "hedgehog", "squirrel", "penguin",
)
MOODS = ("small", "brave", "clever", "shy", "cheerful", "curious", "gentle", "lazy")
PLACES = (
    "a quiet river", "a green forest", "a small village", "a tall mountain", "an old lighthouse",
    "a sunny meadow", "a snowy valley", "a busy harbour",
)
THINGS = (
    "a silver key", "a lost map", "a red kite", "a warm lantern", "a round stone", "a tiny boat",
    "a golden bell", "a paper star",
)
FEELINGS = ("happy", "proud", "calm", "thankful", "surprised")

SOUNDS = {
    "cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink",
    "horse": "neigh", "frog": "ribbit", "owl": "hoot", "mouse": "squeak", "lion": "roar", "bee": "buzz",
    "snake": "hiss", "rooster": "cock-a-doodle-doo",
}
LEGS = {
    "dog": 4, "cat": 4, "bird": 2, "ant": 6, "spider": 8, "duck": 2, "horse": 4, "bee": 6, "fish": 0,
    "snake": 0, "fox": 4, "owl": 2, "cow": 4, "mouse": 4,
}
# The thing with its article, as it stands in a question, and its color.
COLORS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a banana": "yellow",
    "blood": "red", "a carrot": "orange", "milk": "white", "a lemon": "yellow", "a tomato": "red",
    "the sun": "yellow", "a frog": "green", "a fox": "red", "chocolate": "brown", "the sea": "blue",
}
COLOR_NAMES = ("blue", "green", "white", "black", "yellow", "red", "orange", "brown", "pink", "purple")
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "up": "down", "day": "night", "wet": "dry",
    "open": "closed", "early": "late", "full": "empty", "loud": "quiet", "hard": "soft", "light": "dark",
    "old": "new", "left": "right", "rich": "poor", "first": "last", "long": "short", "happy": "sad",
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)

WORDS = (
    "apple", "bell", "bird", "boat", "book", "bread", "bridge", "cat", "chair", "cloud", "coat", "cup",
    "dog", "door", "dream", "farm", "fire", "fish", "flower", "friend", "garden", "glass", "grass", "green",
    "hand", "hat", "hello", "hill", "home", "honey", "house", "key", "king", "lamp", "leaf", "letter",
    "light", "lion", "map", "mesh", "milk", "model", "moon", "morning", "music", "night", "ocean", "orange",
    "paper", "queue", "rain", "red", "river", "road", "rose", "salt", "school", "ship", "shoe", "silver",
    "snow", "song", "star", "stone", "stream", "street", "summer", "sun", "table", "token", "train", "tree",
    "water", "wind", "window", "winter", "wood", "worker", "world", "yellow",
)
VERBS = ("likes", "sees", "finds", "carries", "paints", "hides", "wants", "loves")
OFF_TOPIC = {
    "What is the capital of {}?": ("France", "Japan", "Peru", "Canada", "Italy", "Kenya", "Spain", "Norway"),
    "Who wrote {}?": ("Hamlet", "Faust", "the Odyssey", "this song", "that book", "Don Quixote"),
    "What is the weather like in {}?": ("Berlin", "Paris", "London", "my town", "Tokyo", "Rome"),
    "Who is the president of {}?": ("France", "Chile", "Brazil", "the club", "Poland"),
    "How do I cook {}?": ("rice", "soup", "an egg", "pasta", "a cake", "potatoes"),
    "Write a program in {}.": ("Python", "Rust", "Java", "Go", "C"),
    "Translate {} into French.": ("hello", "this sentence", "good morning", "the word tree"),
    "When was {} born?": ("Mozart", "my mother", "Newton", "the king", "Einstein"),
    "What is the price of {}?": ("gold", "bread", "a house", "oil", "a train ticket"),
    "Explain {} to me.": ("gravity", "quantum physics", "the stock market", "the law", "chemistry"),
}

HARDSHIPS = ("It began to rain, but nobody turned back.", "The night was dark, but nobody was afraid.")
STORY_REQUESTS = (
    "Tell me a story about {}.", "Tell a story about {}.", "Can you tell me a story about {}?",
    "Please tell me a story about {}.", "Write a story about {}.", "Tell me a short story about {}.",
)
LONG_STORY_REQUESTS = (
    "Tell me a long story about {}.", "Tell a long story about {}.",
    "Please tell me a long story about {}.", "Can you tell me a long story about {}?",
    "Write a long story about {}.",
)
ANY_STORY_REQUESTS = ("Tell me a story.", "Tell me a story!", "Please tell me a story.", "Tell a story.")

PLUS_QUESTIONS = ("What is {} plus {}?", "How much is {} + {}?", "What is {} + {}?", "Add {} and {}.")
MINUS_QUESTIONS = ("What is {} minus {}?", "How much is {} - {}?", "What is {} - {}?")
TWICE_QUESTIONS = ("What is twice {}?", "How much is twice {}?")
TIMES_QUESTIONS = ("What is {} times {}?", "How much is {} times {}?", "What is {} * {}?")
COMPARING_QUESTIONS = ("Which is {}, {} or {}?", "Which number is {}, {} or {}?")
COUNTING_REQUESTS = ("Count from {} to {}.", "Please count from {} to {}.", "Can you count from {} to {}?")
COUNTING_FROM_ONE_REQUESTS = (*COUNTING_REQUESTS, "Count to {1}.")

OPPOSITE_QUESTIONS = (
    "What is the opposite of {}?", "Tell me the opposite of {}.", "Give me the opposite of {}.",
    "Which word is the opposite of {}?",
)
CALENDAR_QUESTIONS = (
    "What {kind} comes {side} {here}?", "Which {kind} comes {side} {here}?",
    "What {kind} is {side} {here}?", "Which {kind} is {side} {here}?", "Tell me the {kind} {side} {here}.",
)
SOUND_QUESTIONS = (
    "What does {} say?", "What sound does {} make?", "What is the sound of {}?",
    "Which sound does {} make?",
)
LEG_QUESTIONS = (
    "How many legs does {} have?", "How many legs has {}?", "Tell me how many legs {} has.",
    "What number of legs does {} have?",
)
COLOR_QUESTIONS = (
    "What color is {}?", "Which color is {}?", "Tell me the color of {}.", "What is the color of {}?",
    "What color does {} have?",
)
TABLE_REQUESTS = (
    "Write the table of {}.", "Say the table of {}.", "Tell me the table of {}.",
    "What is the table of {}?",
)
LIST_REQUESTS = ("What are the {}?", "Tell me the {}.", "List the {}.", "Say the {}.", "Name the {}.")

SPELLING_REQUESTS = (
    "Spell {}.", "Spell the word {}.", "Please spell {}.", "How do you spell {}?", "Can you spell {}?",
)
RECORD_REQUESTS = (
    "Give me a JSON record for {}.", "Write a JSON record for {}.", "JSON for {}, please.",
    "Make a JSON record for {}.",
)
SENTENCE_REQUESTS = ("Repeat after me: {}", "Say this: {}", "Please repeat: {}")
TEXT_REQUESTS = ("Repeat: {}", "Say: {}", "Repeat after me: {}")
INTRODUCTIONS = (
    "My name is {}.", "I am {}.", "Hello, my name is {}.", "Hi, I am {}.", "Hello, I am {}.", "Call me {}.",
)
NAME_QUESTIONS = ("What is my name?", "Who am I?", "Do you know my name?", "What was my name?")

# Each entry: some ways to ask, and the one answer.
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself.",
         "What is your name?", "Hi, who are you?", "Hello, who are you?", "Please tell me who you are."),
        "I am the demo model of mesh, a tiny language model. I was trained on made-up sentences, "
        "and I run inside vLLM.",
    ),
    (
        ("What can you do?", "What can I ask you?", "How can you help me?", "Help", "What do you know?",
         "Can you help me?", "What are you good at?", "What should I ask you?"),
        "I can count, add small numbers, spell words, write small JSON records, tell stories "
        "and answer simple questions about queues and workers.",
    ),
    (
        ("How big are you?", "How large are you?", "How many parameters do you have?", "Are you a big model?",
         "Are you a large language model?", "How small are you?"),
        "I have fewer than two million parameters. That is very small for a language model.",
    ),
    (
        ("How are you?", "How are you today?", "Are you well?", "How do you do?", "Hi, how are you?",
         "Hello, how are you?"),
        "I am fine, thank you. My weights are small, but I do my best.",
    ),
    (("Hello", "Hello!", "Hello there!", "Good morning!", "Good evening!"),
     "Hello! Ask me to count, to add, or to tell a story."),
    (("Hi", "Hi!", "Hi there!", "Hey!", "Hey"), "Hi! What would you like to know?"),
    (("Thank you", "Thank you!", "Thanks!", "Thanks", "Thanks a lot!", "Thank you very much."),
     "You are welcome."),
    (("Goodbye", "Goodbye!", "Bye", "Bye!", "See you later!", "Good night!"), "Goodbye! Come back soon."),
    (
        ("Are you alive?", "Are you a person?", "Are you human?", "Are you a robot?", "Are you real?"),
        "No, I am only a small program that guesses the next word.",
    ),
    (
        ("Who made you?", "Who trained you?", "How were you made?", "How were you trained?",
         "Where do you come from?", "What were you trained on?"),
        "I was trained on a small computer without a GPU, on sentences that were made from templates.",
    ),
    (
        ("Can you make mistakes?", "Are you always right?", "Do you make mistakes?", "Can I trust you?",
         "Are you ever wrong?"),
        "I make mistakes. I am here to show how mesh works, so please do not rely on my answers.",
    ),
)

MESH_FACTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("What is a mesh?", "What is mesh?", "Explain mesh.", "What does mesh do?", "Tell me about mesh.",
         "What is mesh for?"),
        "A mesh is a group of workers that share requests, so that no single worker has to do everything.",
    ),
    (
        ("What is a queue?", "Explain what a queue is.", "What does a queue do?", "Tell me about queues.",
         "What is a queue for?", "What are queues?"),
        "A queue is a line of waiting requests. New requests join at the end, and workers take them "
        "from the front.",
    ),
    (
        ("What is a worker?", "What does a worker do?", "Explain what a worker is.", "What is a worker for?",
         "Tell me about workers.", "What do workers do?"),
        "A worker takes a request from the queue, runs the model, and sends the answer back piece by piece.",
    ),
    (
        ("What happens when a worker dies?", "What happens if a worker dies?", "What if a worker crashes?",
         "What happens when a worker crashes?", "What happens if a worker stops?", "Can a worker die?"),
        "When a worker dies, its requests go back to the queue, and another worker finishes them.",
    ),
    (
        ("What is NATS?", "Explain NATS.", "Tell me about NATS.", "What does NATS do?", "What is NATS for?",
         "Why do you need NATS?"),
        "NATS is a small and fast message server. Programs send messages through it without knowing "
        "each other.",
    ),
    (
        ("What is JetStream?", "Explain JetStream.", "What does JetStream do?", "Tell me about JetStream.",
         "What is JetStream for?", "Why do you need JetStream?"),
        "JetStream is the part of NATS that stores messages, so that they are still there after a crash.",
    ),
    (
        ("What is vLLM?", "Explain vLLM.", "What does vLLM do?", "Tell me about vLLM.", "What is vLLM for?"),
        "vLLM is an engine that runs language models. It can answer many requests at the same time.",
    ),
    (
        ("What is a token?", "Explain what a token is.", "What are tokens?", "Tell me about tokens.",
         "What does a token look like?"),
        "A token is a small piece of text, such as a short word, a part of a word, or a digit.",
    ),
    (
        ("What is a stream?", "Explain streaming.", "What is streaming?", "What are streams?",
         "Why do you stream the answer?", "What does streaming mean?"),
        "Streaming means that you see each piece of the answer as soon as it is ready.",
    ),
    (
        ("What is a message?", "Explain what a message is.", "What does a message do?", "What are messages?"),
        "A message is a small packet of data that one program sends to another.",
    ),
    (
        ("What is a request?", "Explain what a request is.", "What are requests?",
         "What does a request hold?"),
        "A request is a question for the model, together with its settings, such as the length of "
        "the answer.",
    ),
    (
        ("What is a client?", "What does a client do?", "Explain what a client is.", "What are clients?"),
        "A client puts a request into the queue and then reads the answer from a stream.",
    ),
    (
        ("What is a model?", "What does a model do?", "Explain what a model is.", "What is a language model?",
         "What are language models?"),
        "A language model reads some text and guesses the next token, again and again.",
    ),
    (
        ("What is a prompt?", "Explain what a prompt is.", "What are prompts?", "What does a prompt do?"),
        "A prompt is the text that a model is given. The model writes what comes after it.",
    ),
    (
        ("What happens when the queue is full?", "What if the queue is full?", "Can the queue be full?",
         "What happens if the queue is full?", "What happens when there are too many requests?"),
        "When the queue is full, new requests are turned away at once, so that nobody waits for nothing.",
    ),
    (
        ("Why are there many workers?", "Why do you need many workers?", "Why is one worker not enough?",
         "Why should I start more workers?", "What do more workers bring?"),
        "Many workers can answer more requests at once, and if one of them stops, the others go on.",
    ),
    (
        ("How do I make it faster?", "How can I make it faster?", "How do I answer more requests?",
         "How does a mesh grow?", "How do I add a worker?"),
        "Start one more worker. It joins the others and takes requests from the same queue.",
    ),
    (
        ("What is a timeout?", "Explain what a timeout is.", "What are timeouts?", "What does a timeout do?"),
        "A timeout is the longest time that you are willing to wait. After it the request is given up.",
    ),
    (
        ("Explain how a mesh works.", "How does a mesh work?", "How does mesh work?",
         "Explain how mesh works.", "Tell me how a mesh works.", "Tell me the way of a request.",
         "What happens to my request?", "Tell me everything about the mesh."),
        "First, a client writes a request and puts it into a queue. The queue is kept by a message "
        "server, so the request is safe even if the client goes away. Second, a worker that has room "
        "takes the request from the front of the queue. It turns the text into tokens and gives them to "
        "the model. Third, the model guesses the next token, then the next one, and so on. Each piece is "
        "sent back as soon as it is ready, so the client can read the answer while it is still being "
        "written. Fourth, when the answer is complete, the worker says that the request is done, and the "
        "queue forgets it. If the worker dies before that, the request goes back to the queue, and "
        "another worker takes it. That is why the client gets a whole answer in the end, even when one of "
        "the workers is lost on the way.",
    ),
)

CANNOT = "I do not know that. I am a tiny model. Ask me to count, to add, to spell or to tell a story."
SYSTEM_TEXTS = (
    "You are a helpful assistant.", "You are a friendly assistant.", "Answer in one sentence.", "Be brief.",
    "You are the demo model of mesh.", "Be polite.", "Always tell the truth.", "You talk to a child.",
    "Do not make things up.", "Answer the question of the user.", "You are a storyteller.",
    "Use plain words.",
)
