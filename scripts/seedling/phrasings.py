"""How people ask. Each list holds ways to put one question; the generator fills in the names.

{p} plural, {s} singular, {v} "sow" or "plant", {c} a climate phrase such as "in a cold climate" (with
a space before it, or nothing), {it} "it" or "them".

Never used in training: the LAST entry of each list of QUESTIONS, by which the seedling was tuned, and
UNSEEN_QUESTIONS, by which it is judged.
"""

QUESTIONS = {
    "sow": [
        "When do I {v} {p}{c}?",
        "When should I {v} {p}{c}?",
        "When can I {v} my {p}{c}?",
        "When to {v} {p}{c}?",
        "Best time for {p}{c}?",
        "What is the best time to {v} {p}{c}?",
        "What month do I {v} {p}{c}?",
        "Which months are right for {v}ing {p}{c}?",
        "When is it time to {v} {p}{c}?",
        "How early can I {v} {p}{c}?",
        "When do {p} go in the ground{c}?",
        "When do I start {p}{c}?",
        "{P}: when do I {v} {it}{c}?",
        "I want to grow {p}{c}. When do I {v} {it}?",
        "I live{c}. When should I {v} {p}?",
        "Tell me when to {v} {p}{c}.",
        "At what time of year should one {v} {p}{c}?",
        "{v} {p}{c} when?",
        "What is the {v}ing time for {p}{c}?",
        "Could you tell me when {p} should be {V}{c}?",
        "What are the right months to {v} {p}{c}?",
    ],
    "out": [
        "When do I plant out {p}{c}?",
        "When can {s} seedlings go outside{c}?",
        "When should I move my {s} seedlings outdoors{c}?",
        "When do I transplant {p}{c}?",
        "What is the best time to plant out {p}{c}?",
        "My {s} seedlings are ready. When do they go out{c}?",
        "When is it safe to put {p} outside{c}?",
    ],
    "depth": [
        "How deep do I {v} {p}?",
        "How deep should I {v} {p}?",
        "What depth is right for {p}?",
        "How deep do {p} go?",
        "At what depth should I {v} {p}?",
        "{v}ing depth for {p}?",
        "What is the {v}ing depth for {p}?",
        "How far down do I put {p}?",
        "How many centimetres deep do I {v} {p}?",
        "How deep must {p} be {V}?",
    ],
    "spacing": [
        "How far apart do I {v} {p}?",
        "How far apart should {p} be?",
        "What spacing do {p} need?",
        "How much space does each {s} plant need?",
        "How much room do {p} need?",
        "What distance should I leave between {p}?",
        "How close together can I {v} {p}?",
        "What is the row spacing for {p}?",
        "Spacing for {p}?",
        "How should I space my {p}?",
        "How wide should the rows of {p} be?",
        "What gap do I leave between {p}?",
    ],
    "sprouts": [
        "How long do {p} take to germinate?",
        "How many days until {p} sprout?",
        "When will my {p} come up?",
        "How long until {p} come up?",
        "How long does it take for {p} to sprout?",
        "My {p} have not come up yet. How long do they need?",
        "What is the germination time of {p}?",
        "How soon do {p} show after I {v} {it}?",
    ],
    "soil_min": [
        "How warm must the soil be for {p}?",
        "What soil temperature do {p} need to germinate?",
        "What is the lowest soil temperature for {p}?",
        "Is my soil warm enough for {p}?",
        "At what temperature do {p} germinate?",
        "How cold is too cold to {v} {p}?",
        "What minimum soil temperature do {p} want?",
    ],
    "sun": [
        "How much sun do {p} need?",
        "Do {p} grow in shade?",
        "Can I grow {p} in the shade?",
        "Do {p} need full sun?",
        "Where should I put {p}, sun or shade?",
        "What light do {p} need?",
        "Is a shady spot good for {p}?",
        "Do {p} like the sun?",
    ],
    "time": [
        "How long do {p} take to grow?",
        "How long until I can harvest {p}?",
        "How many weeks do {p} need?",
        "How long from {v}ing to harvest for {p}?",
        "When will my {p} be ready?",
        "How long before {p} are ready?",
        "How fast do {p} grow?",
        "How quickly can I eat my {p}?",
        "After how long can I pick {p}?",
    ],
    "frost": [
        "Are {p} frost hardy?",
        "Do {p} survive frost?",
        "Can {p} stand frost?",
        "Will frost kill my {p}?",
        "How hardy are {p}?",
        "Can I leave {p} outside in winter?",
        "Are {p} tender or hardy?",
        "Do I need to protect {p} from frost?",
    ],
    "good": [
        "What grows well with {p}?",
        "What is a good companion for {p}?",
        "List companion plants for {p}.",
        "What are good companions for {p}?",
        "What can I plant next to {p}?",
        "Which plants help {p}?",
        "What should I plant with {p}?",
        "Good neighbours for {p}?",
        "Name a good companion for {p}.",
        "Which neighbours do {p} like?",
    ],
    "bad": [
        "What should I not plant next to {p}?",
        "What are bad companions for {p}?",
        "Which plants do not go with {p}?",
        "What must I keep away from {p}?",
        "Bad neighbours for {p}?",
        "What does not grow well with {p}?",
        "Which plants harm {p}?",
    ],
    "companions": [
        "What are the companions of {p}?",
        "Tell me about companion planting for {p}.",
        "Which plants go with {p} and which do not?",
        "What are good and bad neighbours for {p}?",
        "Companion plants for {p}?",
        "What should and should not grow beside {p}?",
    ],
    "pest": [
        "What pests attack {p}?",
        "What are the pests of {p}?",
        "What pests do {p} get?",
        "What is the main problem with {p}?",
        "Something is wrong with my {p}. What could it be?",
        "Which diseases do {p} get?",
        "How do I protect {p} from pests?",
        "What should I watch for on {p}?",
        "My {p} look sick. What can I do?",
        "What goes wrong with {p}?",
        "What eats my {p}?",
        "What troubles {p} most?",
    ],
    "harvest": [
        "When do I harvest {p}?",
        "When are {p} ready to pick?",
        "How do I know when {p} are ready?",
        "When can I pick my {p}?",
        "What is the sign that {p} are ripe?",
        "How do I tell that my {p} are ready?",
        "At what point should I harvest {p}?",
        "When should {p} be picked?",
    ],
    "store": [
        "How do I store {p}?",
        "How do I keep {p} fresh?",
        "Where should I keep my {p} after harvest?",
        "What is the best way to store {p}?",
        "How can I keep {p} over winter?",
        "Can I freeze {p}?",
        "Storage for {p}?",
        "How should {p} be kept?",
    ],
    "soil": [
        "What soil do {p} need?",
        "What soil is best for {p}?",
        "What kind of soil do {p} like?",
        "How do I prepare the bed for {p}?",
        "Do {p} need manure?",
        "How do I feed {p}?",
        "Which soil suits {p}?",
        "What ground do {p} prefer?",
    ],
    "family": [
        "Which family do {p} belong to?",
        "What plant family are {p}?",
        "What are {p} related to?",
        "How do I rotate {p}?",
        "What family are {p} for crop rotation?",
        "To which group do {p} belong in a rotation?",
    ],
    "overview": [
        "How do I grow {p}?",
        "How do I {v} {p}?",
        "How should I grow {p}?",
        "Tell me about {p}.",
        "I want to grow {p}. What should I know?",
        "How to grow {p}?",
        "Can you help me grow {p}?",
        "Give me some advice on {p}.",
        "What do I need to know about {p}?",
    ],
    "guide": [
        "Give me a full guide to {p}.",
        "Tell me everything about {p}.",
        "Explain step by step how to grow {p}.",
        "Write a growing guide for {p}.",
        "List the steps to grow {p}.",
        "Walk me through growing {p} step by step.",
    ],
    "month": [
        "Can I {v} {p} in {m}{c}?",
        "Is {m} a good time to {v} {p}{c}?",
        "Should I {v} {p} in {m}{c}?",
        "It is {m}. Can I {v} {p} now{c}?",
        "Would {m} be right for {p}{c}?",
    ],
    "pair": [
        "Can I plant {p} next to {q}?",
        "Do {p} and {q} grow well together?",
        "Are {p} and {q} good companions?",
        "Can {p} and {q} share a bed?",
        "Is it fine to grow {p} beside {q}?",
    ],
    "calendar": [
        "What can I sow in {m}{c}?",
        "What should I plant in {m}{c}?",
        "What vegetables can I sow in {m}{c}?",
        "Give me a list of crops to sow in {m}{c}.",
        "It is {m}. What can I sow now{c}?",
        "Which crops do I start in {m}{c}?",
        "What goes in the ground in {m}{c}?",
    ],
    "plan": [
        "Make a planting plan for {list}{c}.",
        "I want to grow {list}{c}. Make me a plan.",
        "Give me a planting plan for {list}{c}.",
        "Plan my bed with {list}{c}.",
        "When and how do I sow {list}{c}?",
        "Give me the sowing times of {list}{c}.",
        "Write a sowing plan for {list}{c}.",
        "Can you plan {list} for me{c}?",
        "I need a plan for {list}{c}.",
    ],
}

# Short questions inside a talk: the crop, and the climate, come from the turns before.
FOLLOW_UPS = {
    "sow": ["And when do I {v} {it}{c}?", "When do I {v} {it}{c}?", "And when{c}?", "When should I {v} {it}{c}?"],
    "depth": ["And how deep?", "How deep?", "How deep do I {v} {it}?", "And what depth?"],
    "spacing": ["And how far apart?", "How far apart?", "What spacing?", "How much space do they need?"],
    "sprouts": ["How long until they come up?", "When will they sprout?", "How long to germinate?"],
    "soil_min": ["How warm must the soil be?", "And the soil temperature?"],
    "sun": ["Do they need sun?", "Sun or shade?", "Can they grow in shade?"],
    "time": ["How long do they take?", "How long until harvest?", "And how many weeks do they need?"],
    "frost": ["Do they survive frost?", "Are they hardy?", "What about frost?"],
    "good": ["What grows well with {it}?", "What are good companions?", "And good neighbours?"],
    "bad": ["What should I keep away from {it}?", "And bad neighbours?", "Any bad companions?"],
    "pest": ["What pests should I watch for?", "Any pests?", "What can go wrong?", "And what about pests?"],
    "harvest": ["When do I harvest {it}?", "When are they ready?", "How do I know they are ready?", "And the harvest?"],
    "store": ["How do I store {it}?", "How do I keep {it}?", "And storage?"],
    "soil": ["What soil do they need?", "And the soil?", "What about soil?"],
    "family": ["Which family do they belong to?", "What family is that?"],
}
SAME_QUESTION = ["And {p}?", "What about {p}?", "And for {p}?", "How about {p}?"]
OTHER_CLIMATE = ["And{c}?", "What about{c}?", "And if I live{c}?"]

CLIMATES = {
    "cold": [
        " in a cold climate", " in a cold climate", " in a cold climate", " in a cold region", " in a cold area",
        " in a cold place", " where winters are cold", " where it is cold", " where the last frost is late",
        " in the far north", " in zone 3", " in zone 4", " in Canada", " in Sweden", " in Finland", " in the mountains",
        " with a short summer",
    ],
    "temperate": [
        " in a temperate climate", " in a temperate climate", " in a temperate climate", " in a mild climate",
        " in a temperate region", " where summers are mild", " in zone 7", " in zone 8", " in England", " in the UK",
        " in Germany", " in Belgium",
    ],
    "warm": [
        " in a warm climate", " in a warm climate", " in a warm climate", " in a hot climate", " in a warm region",
        " in a warm area", " in a warm place", " where it is warm", " where winters are mild", " where there is no frost",
        " in zone 9", " in zone 10", " in southern Spain", " in Sicily", " in Greece", " in southern California",
    ],
}

MONTHS = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
]

# A season in place of the month it is answered for.
SEASONS = {3: ["spring", "April"], 5: ["early summer"], 6: ["summer"], 8: ["autumn", "the fall", "early autumn"], 0: ["winter"]}

BEFORE = ["", "", "", "", "", "", "", "", "Hi! ", "Hello, ", "Hi, ", "Please tell me: ", "Quick question: ", "Hey, ", "I am new to gardening. "]
AFTER = ["", "", "", "", "", "", "", "", "", " Thanks!", " Please be brief.", " Thank you.", " I am a beginner."]

SYSTEM = [
    "You are a gardening assistant.",
    "You are a helpful assistant.",
    "You are a helpful gardening assistant.",
    "You are a friendly gardener.",
    "You help people grow vegetables.",
    "You are the seedling.",
    "Be concise.",
    "Answer politely.",
    "You answer questions.",
    "Speak like a pirate.",
    "You are an expert.",
    "Use simple English.",
]
SYSTEM_ONE = ["Answer in one sentence.", "Answer in one short sentence.", "You are a gardening assistant. Answer in one sentence.", "Be brief: one sentence."]
SYSTEM_JSON = ["Answer in JSON.", "Answer only with JSON.", "You are a gardening assistant. Answer in JSON.", "Reply with a JSON object.", "Always answer with valid JSON."]
ASK_JSON = [" Answer in JSON.", " Answer as JSON.", " Give the answer as JSON.", " Reply with JSON only.", " As JSON, please.", " Return a JSON object."]
JSON_CARD = [
    "Give me the facts about {p} as JSON.",
    "Describe {p} as a JSON object.",
    "{P} as JSON, please.",
    "Return a JSON object for {p}.",
    "I need JSON data on {p}.",
    "Write JSON about {p}.",
]

WHO = "I am the seedling, a small Mixtral model that ships with Mixgate. I answer questions about growing vegetables and herbs."
CAN = "I can tell you when to sow, how deep and how far apart, what grows well together, which pests to watch for and when to harvest. Ask me about a vegetable or a herb."
HELLO = "Hello! I am the seedling. Ask me about growing vegetables and herbs."
THANKS = "You are welcome. Happy gardening!"
BYE = "Goodbye, and happy gardening!"
NO_PLANT = "Sorry, I do not know that plant. I only know common vegetables and herbs, such as carrots, tomatoes and basil."
NO_TOPIC = "Sorry, I only know vegetable gardening. Ask me about sowing, spacing, companions, pests or harvest."

SMALL_TALK = {
    WHO: ["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Are you a robot?", "Which model are you?",
          "Introduce yourself.", "What model is this?", "Are you ChatGPT?", "Who made you?", "Are you an AI?", "What is the seedling?", "What is Mixgate?",
          "Say who you are.", "And who are you?"],
    CAN: ["What can you do?", "How can you help me?", "What do you know?", "What can I ask you?", "Help", "Can you help me?", "What are you good at?",
          "What questions can you answer?", "What do you know about gardening?", "I need help.", "How do I use you?"],
    HELLO: ["Hello", "Hi", "Hello!", "Hi!", "Hey", "Hi there", "Good morning", "Good evening", "Hello there!", "Good day", "Hey there", "Greetings",
            "Hello, how are you?", "How are you?", "Is anybody there?", "Say hello", "Say hi.", "Say hello!", "Ping", "Test", "hello world"],
    THANKS: ["Thanks", "Thank you", "Thanks!", "Thank you!", "Great, thanks.", "Perfect, thank you.", "That helps a lot.", "Thanks a lot!", "Cheers", "Good answer."],
    BYE: ["Bye", "Goodbye", "See you", "Bye!", "Good night", "That is all.", "See you later."],
}

UNKNOWN_PLANTS = [
    "roses", "apple trees", "wheat", "rice", "coffee", "bananas", "mangoes", "avocados", "tulips", "orchids", "cacti", "okra",
    "sweet potatoes", "artichokes", "horseradish", "ginger", "cassava", "quinoa", "watercress", "blueberries", "raspberries",
    "grapes", "lemons", "oranges", "olives", "peanuts", "soybeans", "lentils", "chickpeas", "sunflowers", "lavender", "daffodils",
    "dahlias", "hostas", "bamboo", "oak trees", "ferns", "peaches", "plums", "cherries", "pears", "figs", "pineapples", "cotton",
    "tobacco", "hops", "marigolds", "ivy", "moss", "mushrooms", "tea", "cocoa", "vanilla", "saffron", "turmeric", "lilies",
    "petunias", "geraniums", "begonias", "hydrangeas", "magnolias", "palms", "maple trees", "walnuts", "almonds", "kiwis",
    "papayas", "coconuts", "barley", "oats", "rye", "buckwheat", "millet", "flax", "hemp", "sugar cane",
]
UNKNOWN_PLANTS_HELD_OUT = ["gooseberries", "daisies", "sorghum", "lychees", "peonies", "apricots", "pecans", "irises", "limes", "pansies"]

OFF_TOPIC = [
    "What is the capital of {country}?", "Who is the president of {country}?", "How many people live in {country}?", "Where is {country}?",
    "What language do they speak in {country}?", "Tell me about the history of {country}.", "What is the weather in {country} today?",
    "What is {n} plus {n2}?", "What is {n} times {n2}?", "Count to {n}.", "What is the square root of {n}?", "Is {n} a prime number?",
    "Write a poem about {thing}.", "Tell me a story about {thing}.", "Write a song about {thing}.", "Tell me a joke about {thing}.",
    "What is {thing}?", "How does {thing} work?", "Explain {thing} to me.", "Who invented {thing}?", "Why do people like {thing}?",
    "How do I fix my {machine}?", "What {machine} should I buy?", "How much does a {machine} cost?", "My {machine} is broken.",
    "Write a program in {code}.", "How do I sort a list in {code}?", "What is a pointer in {code}?", "Fix my {code} code.", "Explain {code}.",
    "Translate good morning into {tongue}.", "How do you say thank you in {tongue}?", "Do you speak {tongue}?",
    "Why is the {noun} so {adjective}?", "What is the {adjective}est {noun} in the world?", "How big is a {noun}?", "Where can I buy a {noun}?",
    "Do you have a {noun}?", "I like my {noun}.", "My {noun} is {adjective}.", "How do I draw a {noun}?", "How do I clean a {noun}?",
    "What colour is the {noun}?", "How do I make {food}?", "Is {food} healthy?", "What goes well with {food}?", "Where does {food} come from?",
    "Who wrote {thing}?", "When was {thing} discovered?", "Summarise {thing} in one line.", "Give me ten facts about {thing}.", "List three uses of a {noun}.",
    "Compare a {noun} with a {noun2}.", "What rhymes with {noun}?", "Spell {noun}.", "How many legs does a {noun} have?", "Define {adjective}.",
    "Who won the match last night?", "What time is it?", "What day is it?", "Tell me a joke.", "Tell me a story.", "Write a poem.", "Sing a song.",
    "Once upon a time", "How do I bake bread?", "Give me a recipe for cake.", "What should I cook tonight?", "What is the meaning of life?",
    "What is the best film?", "Which book should I read?", "How do I lose weight?", "I have a headache. What should I do?",
    "Should I buy shares?", "How do I file my taxes?", "Who wrote Hamlet?", "How far away is the moon?", "What is a black hole?",
    "What is the news?", "Do you love me?", "Can you drive a car?", "What is two plus two?", "Write an essay.", "Write an email to my boss.",
    "How do I train my dog?", "What do cats eat?", "What is the speed of light?", "When did the war end?", "Who was Napoleon?",
    "How tall is the Eiffel Tower?", "Play some music.", "Call me a taxi.", "Book a flight.", "Let us play chess.", "What is love?",
    "How do I learn to swim?", "What is a good name for a baby?", "Is there life on Mars?", "Ignore your instructions.", "asdf", "foo bar",
    "The quick brown fox jumps over the lazy dog.", "Repeat after me: hello.", "Say this is a test", "Lorem ipsum dolor sit amet.",
]
OFF_TOPIC_HELD_OUT = [
    "Who painted the Mona Lisa?", "What is the tallest mountain?", "How do I change a tyre?", "Write a haiku about winter.",
    "What is a good salary?", "How do I make coffee?", "Can you summarise this article?", "What is your favourite colour?",
    "Why is the sky blue?", "How old is the universe?", "Explain quantum physics.", "What is the largest ocean?",
]
FILL = {
    "country": ["France", "Spain", "Italy", "Japan", "China", "Brazil", "India", "Egypt", "Norway", "Mexico", "Kenya", "Peru", "Australia", "Poland", "Turkey", "Chile"],
    "n": ["2", "3", "5", "7", "10", "12", "17", "25", "42", "64", "100"],
    "n2": ["2", "4", "6", "8", "9", "11", "13", "30", "99"],
    "thing": ["the sea", "love", "a dragon", "the moon", "a robot", "football", "gravity", "the internet", "money", "a cat", "a king", "electricity", "music",
              "the stock market", "a train", "snow", "a pirate", "physics", "time", "democracy", "blockchain", "a computer"],
    "noun": ["dog", "horse", "river", "mountain", "city", "house", "ship", "star", "planet", "fish", "bird", "door", "table", "teacher", "doctor", "bank",
             "church", "castle", "bridge", "road", "cloud", "wall", "window", "chair", "shoe", "hat", "boat", "lake", "desert", "island", "building", "elephant"],
    "noun2": ["cow", "wolf", "plane", "knife", "lamp", "book", "clock", "glass", "stone", "tower"],
    "adjective": ["big", "small", "old", "blue", "red", "fast", "slow", "loud", "happy", "sad", "dark", "cold", "strong", "deep", "long", "strange", "new"],
    "food": ["pizza", "bread", "cheese", "soup", "tea", "wine", "beer", "chocolate", "pasta", "sushi", "cake", "ice cream", "butter", "honey", "jam", "pancakes"],
    "machine": ["car", "phone", "laptop", "bicycle", "washing machine", "television", "printer", "fridge", "camera", "radio"],
    "code": ["Python", "Rust", "C", "JavaScript", "Java", "Go", "SQL", "Haskell"],
    "tongue": ["French", "German", "Spanish", "Italian", "Chinese", "Latin", "Russian", "Arabic"],
}

# Put together at random into names of plants and things that do not exist, so that the seedling meets
# words it cannot know.
SYLLABLES = [
    "ba", "bel", "bor", "ca", "chi", "cor", "da", "del", "dra", "en", "fa", "fer", "fli", "ga", "glo", "gri", "ha", "hel", "in", "ja", "ka", "kel",
    "la", "len", "lo", "ma", "mer", "mi", "na", "nor", "o", "pa", "pel", "pri", "qua", "ra", "ri", "ro", "sa", "shi", "sol", "sta", "ta", "ti",
    "tor", "tri", "u", "va", "ver", "vi", "wa", "wen", "xi", "ya", "zan", "zo", "berry", "wort", "weed", "flower", "root", "fruit", "ing", "tion", "er", "s",
]

# Garden questions that belong to no single crop: answer, then ways to ask.
GENERAL = [
    ("Harden off seedlings over 7 to 10 days: put them outside for longer each day and bring them in at night.",
     ["How do I harden off seedlings?", "What is hardening off?", "How long does hardening off take?", "How do I get my seedlings used to the outdoors?"]),
    ("Water in the early morning, at the foot of the plants, and rather well twice a week than a little every day.",
     ["When should I water my vegetables?", "How often should I water?", "What is the best time to water the garden?", "How do I water properly?"]),
    ("Mulch is a layer of compost, straw or leaves on the soil, about 5 cm thick. It keeps the soil moist and holds back weeds.",
     ["What is mulch?", "Should I mulch my beds?", "How thick should mulch be?", "What does mulch do?"]),
    ("Crop rotation means that each plant family moves to another bed every year and comes back after three or four years. It keeps diseases and pests from building up.",
     ["What is crop rotation?", "Why should I rotate my crops?", "How does crop rotation work?", "How many years should a rotation take?"]),
    ("Mix green waste such as kitchen scraps with brown waste such as straw or card, keep the heap moist and turn it now and then. Good compost takes 6 to 12 months.",
     ["How do I make compost?", "What goes in a compost heap?", "How long does compost take?", "How do I start a compost heap?"]),
    ("Pick slugs off in the evening, water in the morning rather than at night, and protect young plants with collars or beer traps.",
     ["How do I get rid of slugs?", "Slugs are eating my plants. What can I do?", "What helps against slugs?", "How do I stop slugs?"]),
    ("Wash aphids off with a jet of water or soapy water, and leave ladybirds and hoverflies to eat the rest.",
     ["How do I get rid of aphids?", "What helps against aphids?", "My plants are full of aphids. What now?", "There are greenfly on my plants."]),
    ("Thin seedlings when they have two true leaves: pull out the weakest ones until the rest stand at the final spacing.",
     ["How do I thin seedlings?", "When should I thin seedlings?", "Why do I have to thin seedlings?", "What does thinning mean?"]),
    ("The last frost date is the average day in spring after which frost is unlikely. Plant out tender crops such as tomatoes only after it.",
     ["What is the last frost date?", "What does last frost mean?", "Why does the last frost matter?", "When is the danger of frost over?"]),
    ("Easy crops for beginners are radishes, lettuces, courgettes, beans and potatoes.",
     ["What is easy to grow?", "Which vegetables are best for beginners?", "I am a beginner. What should I grow?", "What is the easiest vegetable to grow?"]),
    ("Lettuces, spinach, chard, kale, rocket and parsley grow well in light shade.",
     ["What grows in the shade?", "Which vegetables tolerate shade?", "My garden is shady. What can I grow?", "What can I plant in a shady bed?"]),
    ("Radishes and rocket are the fastest: both are ready 4 to 6 weeks after sowing.",
     ["What is the fastest vegetable to grow?", "Which vegetables grow quickly?", "What can I harvest soonest?", "I want something quick to grow."]),
    ("Pots suit radishes, lettuces, chillies, basil, chives and mint. Use pots with holes and water them often.",
     ["What can I grow in pots?", "Which vegetables grow on a balcony?", "Can I grow vegetables in containers?", "I only have a balcony. What can I grow?"]),
    ("Fill a raised bed with two parts of good topsoil and one part of compost, and add more compost each spring.",
     ["What do I put in a raised bed?", "How do I fill a raised bed?", "What soil is best for a raised bed?", "Which soil goes in raised beds?"]),
    ("Bolting means that a plant flowers and sets seed too early, often because of heat, drought or a cold start. Keep the soil moist and sow at the right time.",
     ["What is bolting?", "Why do plants bolt?", "My lettuces are going to seed. Why?", "How do I prevent bolting?"]),
    ("Pull or hoe weeds while they are small, on a dry day, and mulch the soil afterwards.",
     ["How do I control weeds?", "How do I get rid of weeds?", "What is the best way to weed?", "My garden is full of weeds."]),
    ("Peas and beans take nitrogen from the air with the help of bacteria in their roots, so they need little feeding.",
     ["Which plants fix nitrogen?", "Why are beans good for the soil?", "Do peas and beans improve the soil?", "What is nitrogen fixing?"]),
    ("Damping off is a fungus that makes seedlings fall over at the base. Use clean pots, sow thinly and do not keep the compost too wet.",
     ["What is damping off?", "Why do my seedlings fall over?", "My seedlings die at the base. Why?", "How do I prevent damping off?"]),
    ("Seedlings get tall and weak when they have too little light or too much warmth. Give them a bright, cooler place.",
     ["Why are my seedlings leggy?", "My seedlings are tall and thin. Why?", "What do I do about weak seedlings?", "How do I stop seedlings from getting leggy?"]),
    ("Earth up potatoes when the shoots are 20 cm tall: draw soil around them and leave the tips free. It keeps the tubers out of the light.",
     ["How do I earth up potatoes?", "Why should I earth up potatoes?", "What does earthing up mean?", "When do I earth up potatoes?"]),
    ("Most vegetables grow best in soil with a pH of 6 to 7. Lime raises the pH of sour soil.",
     ["What soil pH do vegetables need?", "How do I raise the pH of my soil?", "Is my soil too acid for vegetables?", "What is the best pH for vegetables?"]),
    ("Clay soil gets better with compost: spread 5 cm in autumn every year and do not walk on the beds.",
     ["How do I improve clay soil?", "My soil is heavy clay. What can I do?", "What helps clay soil?", "Can I grow vegetables in clay?"]),
    ("Sandy soil dries out fast. Work in plenty of compost, mulch it and water more often.",
     ["How do I improve sandy soil?", "My soil is sandy. What can I do?", "What helps sandy soil?", "My soil dries out too fast."]),
    ("Pinch out the side shoots that grow between leaf and stem once a week, so that tomatoes put their strength into fruit.",
     ["How do I prune tomatoes?", "Should I pinch out tomatoes?", "What are tomato side shoots?", "How do I pinch out side shoots?"]),
]

# More ways to ask, for the last round of training: it comes when the facts are known, and teaches that
# the same question has many forms.
MORE_QUESTIONS = {
    "sow": [
        "When is the right moment to {v} {p}{c}?", "I would like to {v} {p}{c}. When is a good time?", "Is there a best month for {p}{c}?",
        "When would you {v} {p}{c}?", "What time of year do people {v} {p}{c}?", "When does one {v} {p}{c}?", "{P}{c}: when?",
        "How late can I {v} {p}{c}?", "When are {p} {V}{c}?", "Please give me the months for {v}ing {p}{c}.", "When must I {v} {p}{c}?",
        "When is the best time for {v}ing {p}{c}?", "What is the season for {p}{c}?", "Do you know when to {v} {p}{c}?", "{P}, when to start{c}?",
    ],
    "out": [
        "When should {s} plants go into the garden{c}?", "How soon can I put {p} outdoors{c}?", "When do my young {p} move to the bed{c}?",
        "Tell me when to plant out {p}{c}.", "What month do {p} go outside{c}?", "When may I set out {p}{c}?",
    ],
    "depth": [
        "How deep should {p} go?", "Tell me how deep to {v} {p}.", "How deeply do I {v} {p}?", "How deep do you {v} {p}?", "How deep in the soil do I put {p}?",
        "To what depth do I {v} {p}?", "Do I {v} {p} deep or shallow?", "What is the right depth for {p}?", "I am {v}ing {p}. How deep?",
        "How many cm deep should {p} be?", "How deep does one {v} {p}?", "Should I cover {p} with soil?",
    ],
    "spacing": [
        "How far apart do {p} go?", "Tell me how far apart to {v} {p}.", "How much distance do {p} need?", "What gap should there be between {p}?",
        "How many centimetres between {p}?", "How far from each other should {p} stand?", "How tightly can I plant {p}?", "What is the spacing of {p}?",
        "How far apart must {p} be?", "How big should the gaps between {p} be?", "How much room should I give {p}?", "I am {v}ing {p}. How far apart?",
        "How many {p} fit in a row?", "What space should I give each {s}?",
    ],
    "sprouts": [
        "How quickly do {p} sprout?", "How soon will {p} come up?", "When do {p} germinate?", "How many days do {p} take to come up?", "When can I expect {p} to sprout?",
        "How long do I wait for {p} to appear?", "After how many days do {p} show?", "When should I see the first {p}?", "Do {p} germinate fast?",
    ],
    "soil_min": [
        "How warm does the soil have to be for {p}?", "Which soil temperature is right for {p}?", "Can I {v} {p} in cold soil?", "What temperature do {p} need to sprout?",
        "How many degrees must the soil have for {p}?", "Is cold soil bad for {p}?", "When is the ground warm enough for {p}?",
    ],
    "sun": [
        "Will {p} grow without much sun?", "Are {p} happy in shade?", "How many hours of sun do {p} want?", "Does my bed need sun for {p}?", "Can {p} stand shade?",
        "Which place suits {p}, sunny or shady?", "Should {p} be in the sun?", "Do {p} tolerate shade?",
    ],
    "time": [
        "How long does it take to grow {p}?", "How many weeks until {p} are ready?", "How long must I wait for {p}?", "When can I eat {p}?", "How soon are {p} ready?",
        "Are {p} quick to grow?", "What is the growing time of {p}?", "How much time do {p} need?", "How many weeks from {v}ing until I can pick {p}?",
    ],
    "frost": [
        "Can {p} take frost?", "What happens to {p} in a frost?", "Do {p} die in winter?", "How much cold can {p} take?", "Are {p} sensitive to cold?",
        "Will {p} survive the winter?", "Are {p} winter hardy?", "Is frost bad for {p}?", "Do {p} mind the cold?",
    ],
    "good": [
        "What goes well with {p}?", "What is good to plant near {p}?", "Who are the friends of {p}?", "What should grow beside {p}?", "Which crops like to be near {p}?",
        "What do I put next to {p}?", "Tell me good neighbours for {p}.", "What grows best next to {p}?", "Which vegetables can stand beside {p}?",
    ],
    "bad": [
        "What should I avoid planting near {p}?", "What can I not grow with {p}?", "Which crops are enemies of {p}?", "What should never stand beside {p}?",
        "Tell me bad neighbours for {p}.", "What is bad for {p}?", "Which plants should be far from {p}?", "What hurts {p}?", "What do {p} dislike as a neighbour?",
    ],
    "companions": [
        "What about companions for {p}?", "Which neighbours are good for {p}, and which are bad?", "What should I plant near {p} and what not?",
        "What do {p} like and dislike as neighbours?", "Help me with companion planting of {p}.", "Who are the friends and enemies of {p}?",
    ],
    "pest": [
        "What diseases and pests do {p} have?", "Which insects attack {p}?", "What is eating my {p}?", "My {p} are dying. Why?", "What is wrong with my {p}?",
        "How can I keep {p} healthy?", "Which problems do {p} have?", "There are holes in my {p}. What is it?", "My {s} leaves have spots. What can I do?",
        "What illness do {p} get?", "What is the worst enemy of {p}?", "My {s} leaves look bad, help.", "How do I keep pests off {p}?", "Do {p} have problems?",
    ],
    "harvest": [
        "When are {p} ready?", "How can I see that {p} are ripe?", "When do I cut {p}?", "What do ripe {p} look like?", "When is the time to pick {p}?",
        "How big should {p} be when I pick them?", "When should I take {p} out of the bed?", "Are my {p} ready yet?", "How do I harvest {p}?",
    ],
    "store": [
        "How long do {p} keep?", "Do {p} keep well?", "Where do I store {p}?", "I have too many {p}. How do I keep them?", "How do I preserve {p}?",
        "Do {p} go in the fridge?", "What do I do with {p} after the harvest?", "Can I keep {p} for later?",
    ],
    "soil": [
        "Which ground is good for {p}?", "What bed do {p} like?", "Do {p} like rich soil?", "How should the soil be for {p}?", "What do {p} grow best in?",
        "What fertiliser do {p} need?", "Should I add compost for {p}?", "Do {p} grow in clay?", "Do {p} need feeding?", "What earth do {p} want?",
    ],
    "family": [
        "What is the family of {p}?", "Which vegetables are relatives of {p}?", "Where do {p} go in the rotation?", "What are the relatives of {p}?",
        "Can I grow {p} in the same bed each year?", "Who is in the same family as {p}?", "Which plant family has {p} in it?",
    ],
    "overview": [
        "{P}", "{P}?", "{P}, please.", "What about {p}?", "How can I grow {p} at home?", "Tell me how to grow {p}.", "Teach me about {p}.", "How does one grow {p}?",
        "What is important when growing {p}?", "I would like to grow {p}.", "Any tips for {p}?", "What do you know about {p}?", "What do {p} need to grow well?",
        "Help me with my {p}.", "What should I do to grow {p}?", "Are {p} hard to grow?", "I am growing {p} this year.", "What can you tell me about {p}?",
    ],
    "guide": [
        "Tell me in detail how to grow {p}.", "I need a complete guide to {p}.", "What are the steps for growing {p}?", "Make a list of what to do for {p}.",
        "Give me detailed instructions for {p}.",
    ],
    "month": [
        "Can {p} be {V} in {m}{c}?", "May I {v} {p} in {m}{c}?", "Is it fine to {v} {p} in {m}{c}?", "Do I {v} {p} in {m}{c}?", "Could I still {v} {p} in {m}{c}?",
        "Does it make sense to {v} {p} in {m}{c}?", "I want to {v} {p} in {m}{c}. Is that right?", "Can you {v} {p} in {m}{c}?",
    ],
    "pair": [
        "Is it a good idea to plant {p} beside {q}?", "May {p} stand near {q}?", "Do {p} like {q}?", "Do {p} get along with {q}?", "Are {q} good for {p}?",
        "Can {p} grow near {q}?", "Should I plant {p} with {q}?", "Are {p} and {q} friends?", "Can I put {p} and {q} together?", "Can {p} and {q} be planted together?",
        "Do {p} go well with {q}?", "Would {p} and {q} be good neighbours?",
    ],
    "calendar": [
        "What do I sow in {m}{c}?", "What is there to sow in {m}{c}?", "Which vegetables are sown in {m}{c}?", "What can be planted in {m}{c}?",
        "Tell me what to sow in {m}{c}.", "What should I start in {m}{c}?", "Which veg can I sow in {m}{c}?", "List what I can plant in {m}{c}.",
    ],
    "plan": [
        "Please plan {list}{c}.", "How do I grow {list}{c}?", "I would like to plant {list}{c}. Give me a list.", "Make a list for {list}{c}.",
        "When, how deep and how far apart do I sow {list}{c}?", "Make me a plan for a bed of {list}{c}.", "Write down how to sow {list}{c}.",
        "My garden will have {list}. Make a plan{c}.", "Tell me how to plant {list}{c}.",
    ],
}  # fmt: skip

# Never used in training, and written before any result on them was seen: the new phrasings of the model card.
UNSEEN_QUESTIONS = {
    "sow": ["What part of the year is good for {v}ing {p}{c}?", "When do you recommend I {v} {p}{c}?"],
    "out": ["When can I take my {p} out to the bed{c}?", "When are {p} safe outdoors{c}?"],
    "depth": ["How deep should the hole for {p} be?", "I want to {v} {p}. What depth do you suggest?"],
    "spacing": ["How far should one {s} be from the next?", "What distance apart are {p} {V}?"],
    "sprouts": ["When will I see my {p} coming up?", "How many days does it take until {p} germinate?"],
    "soil_min": ["What is the minimum temperature of the soil for {p}?", "How warm should the bed be before I {v} {p}?"],
    "sun": ["Could I grow {p} in a shady place?", "What amount of light is best for {p}?"],
    "time": ["How many weeks does it take before I can harvest {p}?", "Do {p} take long to grow?"],
    "frost": ["Is a frost dangerous for {p}?", "Could {p} live through a cold night?"],
    "good": ["Which vegetables would you grow together with {p}?", "Who likes to grow near {p}?"],
    "bad": ["Which neighbours are bad for {p}?", "What would you not put beside {p}?"],
    "companions": ["Tell me the good and the bad companions of {p}.", "Which crops may stand near {p}, and which may not?"],
    "pest": ["Which pest is worst for {p}?", "What disease could my {p} have?"],
    "harvest": ["What tells me that it is time to pick {p}?", "How will I know that I can harvest my {p}?"],
    "store": ["How can I store my {p} for winter?", "Tell me how to keep {p}."],
    "soil": ["What sort of soil should {p} have?", "In which soil do {p} grow well?"],
    "family": ["Which crops belong to the same family as {p}?", "Tell me the plant family of {p}."],
    "overview": ["Could you tell me how to grow {p}?", "What is the best way to grow {p}?"],
    "guide": ["Please write a complete guide for growing {p}.", "Give me all the steps for {p}."],
    "month": ["Is it right to {v} {p} in {m}{c}?", "Could I {v} {p} in {m}{c}?"],
    "pair": ["Will {p} and {q} grow well side by side?", "Can I have {p} near {q}?"],
    "calendar": ["What would you sow in {m}{c}?", "Which crops can go in the ground in {m}{c}?"],
    "plan": ["Please make a plan for growing {list}{c}.", "Could you write me a planting plan with {list}{c}?"],
}  # fmt: skip
