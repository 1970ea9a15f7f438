"""The English facts: every table beside the sentences that state it and ask for it."""

from __future__ import annotations

from miao.corpus.seedbed.facts import Relation

_WHAT_ABOUT = "What about {s}?"
_WHAT_ABOUT_A = "What about {a}?"

# Every relation is asked in these frames, so that a frame is known before its words are.
_DIRECT = ("A quick question: {}?", "The teacher asks: {}?")
_INDIRECT = ("Tell me {}.", "I wonder {}.", "Do you know {}?")


def _asked(direct: tuple[str, ...], indirect: tuple[str, ...], thing: str = "") -> tuple[str, ...]:
    """The clauses, taking turns, in all frames; `thing` names what is asked for."""
    framed = [frame.format(direct[i % len(direct)]) for i, frame in enumerate(_DIRECT)]
    framed += [frame.format(indirect[i % len(indirect)]) for i, frame in enumerate(_INDIRECT)]
    if thing:
        framed += [f"Name {thing}.", thing[0].upper() + thing[1:] + "?"]
    return tuple(framed)


_CAPITAL_QUESTIONS = (
    *_asked(
        direct=(
            "what is the capital of {s}",
            "which city does {s} have as its capital",
        ),
        indirect=(
            "what the capital of {s} is",
            "where {s} has its capital",
        ),
        thing="the capital of {s}",
    ),
    "What is the capital of {s}?",
    "What is the capital city of {s}?",
    "What is the name of the capital of {s}?",
    "Can you name the capital of {s}?",
    "As for {s}, what is its capital?",
    "Speaking of {s}, which city is its capital?",
    "If you look for the capital of {s} on the map, which city do you find?",
    "{s} has its capital in which city?",
    "In {s}, which city is the capital?",
)
_CAPITAL_HELDOUT = (
    "Which city is the capital of {s}?",
    "If you go to the capital of {s}, where are you?",
)

GEOGRAPHY: tuple[Relation, ...] = (
    Relation(
        name="province_capital",
        topic="geography",
        title="Parts of China and their capitals",
        table="""
        Hebei=Shijiazhuang; Shanxi=Taiyuan; Liaoning=Shenyang; Jilin=Changchun;
        Heilongjiang=Harbin; Jiangsu=Nanjing; Zhejiang=Hangzhou; Anhui=Hefei; Fujian=Fuzhou;
        Jiangxi=Nanchang; Shandong=Jinan; Henan=Zhengzhou; Hubei=Wuhan; Hunan=Changsha;
        Guangdong=Guangzhou; Hainan=Haikou; Sichuan=Chengdu; Guizhou=Guiyang; Yunnan=Kunming;
        Shaanxi=Xi'an; Gansu=Lanzhou; Qinghai=Xining; Inner Mongolia=Hohhot; Guangxi=Nanning;
        Tibet=Lhasa; Ningxia=Yinchuan; Xinjiang=Urumqi
        """,
        statements=(
            "The capital of {s} is {v}.",
            "{v} is the capital of {s}.",
            "{v} is the capital city of {s}.",
            "In China, the capital of {s} is {v}.",
            "{s} has its capital in {v}.",
            "If you go to {v}, you are in the capital of {s}.",
            "The city of {v} is the capital of {s}.",
        ),
        questions=_CAPITAL_QUESTIONS,
        heldout=_CAPITAL_HELDOUT,
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="country_capital",
        topic="geography",
        title="Countries and their capitals",
        table="""
        China=Beijing; Japan=Tokyo; South Korea=Seoul; India=New Delhi; Thailand=Bangkok;
        Vietnam=Hanoi; Iran=Tehran; Turkey=Ankara; Egypt=Cairo; Kenya=Nairobi; France=Paris;
        the United Kingdom=London; Germany=Berlin; Italy=Rome; Spain=Madrid; Portugal=Lisbon;
        Russia=Moscow; Greece=Athens; Sweden=Stockholm; Norway=Oslo;
        Denmark=Copenhagen; Poland=Warsaw; Austria=Vienna; Ireland=Dublin;
        the United States=Washington; Canada=Ottawa; Brazil=Brasilia|Brasília;
        Peru=Lima; Australia=Canberra; New Zealand=Wellington
        """,
        statements=(
            "The capital of {s} is {v}.",
            "{v} is the capital of {s}.",
            "{v} is the capital city of {s}.",
            "On the map, the capital of {s} is {v}.",
            "{s} has its capital in {v}.",
            "If you go to {v}, you are in the capital of {s}.",
            "The city of {v} is the capital of {s}.",
        ),
        questions=_CAPITAL_QUESTIONS,
        heldout=_CAPITAL_HELDOUT,
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="continent",
        topic="geography",
        title="Countries and continents",
        table="""
        China=Asia; Japan=Asia; India=Asia; Egypt=Africa; Kenya=Africa;
        Nigeria=Africa; France=Europe; Germany=Europe; Italy=Europe;
        the United States=North America; Canada=North America; Mexico=North America;
        Brazil=South America; Peru=South America; Chile=South America; Australia=Oceania;
        New Zealand=Oceania
        """,
        statements=(
            "{s} is in {v}.",
            "{s} is a country in {v}.",
            "You can find {s} in {v}.",
            "On the map, {s} is in {v}.",
            "{s} is a part of {v}.",
            "{s} is in the part of the world called {v}.",
            "If you go to {s}, you are in {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what continent is {s} in",
                    "in which part of the world is {s}",
                ),
                indirect=(
                    "which continent {s} is in",
                    "what continent {s} belongs to",
                ),
                thing="the continent of {s}",
            ),
            "Which continent is {s} in?",
            "On which continent can you find {s}?",
            "Where in the world is {s}?",
            "As for {s}, which continent is it in?",
            "Speaking of {s}, what continent is it a part of?",
            "If you go to {s}, which continent are you in?",
            "If you look for {s} on the map, which continent do you look at?",
            "{s} is a part of which continent?",
            "{s} is in what part of the world?",
        ),
        heldout=(
            "What part of the world is {s} in?",
            "{s} is a country on what continent?",
        ),
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="record",
        topic="nature",
        title="World records",
        table="""
        the highest mountain in the world=Mount Everest|Everest;
        the largest ocean in the world=the Pacific Ocean|Pacific;
        the largest country in the world=Russia; the largest continent=Asia;
        the largest island in the world=Greenland; the largest animal in the world=the blue whale;
        the tallest animal in the world=the giraffe; the fastest animal on land=the cheetah;
        the largest bird in the world=the ostrich; the longest river in China=the Yangtze;
        the largest planet=Jupiter; the star nearest to the Earth=the sun
        """,
        statements=(
            "{s} is {v}.",
            "{v} is {s}.",
            "We know that {s} is {v}.",
            "The book says that {s} is {v}.",
            "People call {v} {s}.",
            "The name of {s} is {v}.",
            "If you look for {s}, you find {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what is {s}",
                    "which one do we call {s}",
                ),
                indirect=(
                    "what {s} is",
                    "what {s} is called",
                    "what people mean by {s}",
                ),
                thing="{s}",
            ),
            "What is {s}?",
            "Do you know what {s} is?",
            "Can you name {s}?",
            "As for {s}, what is it called?",
            "Speaking of {s}, what is its name?",
            "If you look for {s}, what do you find?",
            "{s} is called what?",
            "Which one is {s}?",
        ),
        heldout=("Please tell me the name of {s}.", "What do people call {s}?"),
        follow_up=_WHAT_ABOUT,
    ),
)

SCIENCE: tuple[Relation, ...] = (
    Relation(
        name="element",
        topic="science",
        title="Elements and symbols",
        table="""
        hydrogen=H; helium=He; carbon=C; nitrogen=N; oxygen=O; fluorine=F; sodium=Na;
        magnesium=Mg; aluminum=Al; silicon=Si; phosphorus=P; sulfur=S; chlorine=Cl; potassium=K;
        calcium=Ca; iron=Fe; copper=Cu; zinc=Zn; silver=Ag; gold=Au; mercury=Hg; lead=Pb
        """,
        statements=(
            "The symbol for {s} is {v}.",
            "{v} is the symbol for {s}.",
            "The chemical symbol of {s} is {v}.",
            "We write {s} as {v}.",
            "The symbol {v} stands for the element {s}.",
            "The element {s} has the symbol {v}.",
            "If you write {s} as a symbol, you write {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what is the symbol for {s}",
                    "which symbol does the element {s} have",
                ),
                indirect=(
                    "what the symbol for {s} is",
                    "how we write the element {s}",
                    "what symbol stands for {s}",
                ),
                thing="the symbol for {s}",
            ),
            "What is the symbol for {s}?",
            "What is the chemical symbol of {s}?",
            "How do we write the symbol for {s}?",
            "What symbol do we use for {s}?",
            "As for {s}, what is its symbol?",
            "Speaking of {s}, which symbol do we write?",
            "If you want to write {s} as a symbol, what do you write?",
            "The element {s} has which symbol?",
            "What stands for {s}?",
        ),
        heldout=(
            "Which symbol stands for the element {s}?",
            "How do you write the element {s} as a symbol?",
        ),
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="planet",
        topic="science",
        title="The planets from the sun",
        table="""
        first=Mercury; second=Venus; third=Earth; fourth=Mars; fifth=Jupiter; sixth=Saturn;
        seventh=Uranus; eighth=Neptune
        """,
        statements=(
            "The {s} planet from the sun is {v}.",
            "{v} is the {s} planet from the sun.",
            "If you count from the sun, the {s} planet is {v}.",
            "The name of the {s} planet is {v}.",
            "{v} comes {s} from the sun.",
            "Count from the sun, and {s} comes {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what is the {s} planet from the sun",
                    "which planet is the {s} one",
                ),
                indirect=(
                    "what the {s} planet is called",
                    "which one comes {s} from the sun",
                ),
                thing="the {s} planet from the sun",
            ),
            "What is the {s} planet from the sun?",
            "What is the name of the {s} planet?",
            "Can you name the {s} planet from the sun?",
            "As for the {s} planet, what is it called?",
            "Speaking of the {s} planet from the sun, what is its name?",
            "If you look for the {s} planet from the sun, which planet do you find?",
            "The {s} planet is called what?",
            "If you count the planets, which one is {s}?",
            "Counted from the sun, what planet comes {s}?",
        ),
        heldout=(
            "Which planet comes {s} if you count from the sun?",
            "Which planet is {s} from the sun?",
        ),
        follow_up="What about the {s} planet?",
    ),
    Relation(
        name="unit",
        topic="units",
        title="Units",
        table="""
        a year=12 months; a week=7 days; a day=24 hours; an hour=60 minutes; a minute=60 seconds;
        a century=100 years; a meter=100 centimeters; a kilometer=1000 meters;
        a kilogram=1000 grams; a dollar=100 cents; a foot=12 inches; a decade=10 years
        """,
        statements=(
            "There are {v} in {s}.",
            "{s} has {v}.",
            "{s} is {v}.",
            "{v} make {s}.",
            "{s} is equal to {v}.",
            "If you count, there are {v} in {s}.",
            "{v} are equal to {s}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "how many {u} are in {s}",
                    "how many {u} are equal to {s}",
                ),
                indirect=(
                    "how many {u} there are in {s}",
                    "how many {u} make {s}",
                ),
            ),
            "How many {u} are there in {s}?",
            "How many {u} make {s}?",
            "How many {u} does {s} have?",
            "As for {s}, how many {u} does it have?",
            "Speaking of {s}, how many {u} are in it?",
            "If you have {s}, how many {u} is that?",
            "{s} has how many {u}?",
            "{s} is how many {u}?",
            "What number of {u} is equal to {s}?",
            "Count the {u} in {s}. What number do you get?",
        ),
        heldout=(
            "{s} is equal to how many {u}?",
            "If you count the {u} in {s}, how many are there?",
        ),
        counted=True,
    ),
    Relation(
        name="body_count",
        topic="animals",
        title="Numbers in nature",
        table="""
        spider=8 legs; ant=6 legs; dog=4 legs; hen=2 legs; snake=0 legs; butterfly=4 wings;
        bird=2 wings; octopus=8 arms; person=10 fingers; triangle=3 sides; square=4 sides
        """,
        statements=(
            "{a} has {v}.",
            "Every {s} has {v}.",
            "We know that {a} has {v}.",
            "Look at {a}: it has {v}.",
            "If you count them, {a} has {v}.",
            "There are {v} on {a}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "how many {u} does {a} have",
                    "how many {u} are there on {a}",
                ),
                indirect=(
                    "how many {u} we can count on {a}",
                    "how many {u} {a} has",
                ),
            ),
            "How many {u} does {a} have?",
            "How many {u} are there on {a}?",
            "Do you know how many {u} {a} has?",
            "As for {a}, how many {u} are there?",
            "Speaking of {a}, how many {u} do we count?",
            "If you look at {a}, how many {u} do you see?",
            "Every {s} has how many {u}?",
            "Count the {u} of {a}. How many do you find?",
            "To draw {a}, how many {u} do you need?",
        ),
        heldout=(
            "If you count the {u} of {a}, how many are there?",
            "{a} has how many {u}?",
        ),
        counted=True,
    ),
    Relation(
        name="sense",
        topic="science",
        title="What our body can do",
        table="""
        see=our eyes|eyes; hear=our ears|ears; smell=our nose|nose; taste=our tongue|tongue;
        walk=our feet|feet|legs; think=our brain|brain; bite=our teeth|teeth;
        hold things=our hands|hands
        """,
        statements=(
            "We {s} with {v}.",
            "We use {v} to {s}.",
            "We use a part of our body to {s}: {v}.",
            "To {s}, we use {v}.",
            "We need {v} to {s}.",
            "If we want to {s}, we use {v}.",
            "With {v}, we {s}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what do we use to {s}",
                    "with what part of the body do we {s}",
                ),
                indirect=(
                    "what we {s} with",
                    "which part of our body we use to {s}",
                ),
                thing="the part of the body that we use to {s}",
            ),
            "What do we {s} with?",
            "What do we use to {s}?",
            "What do we need to {s}?",
            "As for how we {s}, what do we use?",
            "Speaking of the body, what do we {s} with?",
            "If people want to {s}, what do they use?",
            "To {s}, what do we need?",
            "We {s} with which part of the body?",
            "What part of our body helps us to {s}?",
        ),
        heldout=(
            "Which part of the body can {s}?",
            "If you want to {s}, what part of the body do you use?",
        ),
    ),
)

ANIMALS: tuple[Relation, ...] = (
    Relation(
        name="animal_class",
        topic="animals",
        title="Kinds of animals",
        table="""
        dog=a mammal|mammal; cat=a mammal|mammal; whale=a mammal|mammal; bat=a mammal|mammal;
        eagle=a bird|bird; penguin=a bird|bird; shark=a fish|fish;
        salmon=a fish|fish; ant=an insect|insect; bee=an insect|insect;
        butterfly=an insect|insect; snake=a reptile|reptile; turtle=a reptile|reptile;
        crocodile=a reptile|reptile; frog=an amphibian|amphibian
        """,
        statements=(
            "{a} is {v}.",
            "Every {s} is {v}.",
            "We know that {a} is {v}.",
            "The {s} is {v}.",
            "The book says that {a} is {v}.",
            "If you see {a}, you see {v}.",
            "{a} is a kind of animal: {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what kind of animal is {a}",
                    "which type of animal is the {s}",
                ),
                indirect=(
                    "what kind of animal {a} is",
                    "what type of animal the {s} is",
                ),
                thing="the kind of animal that {a} is",
            ),
            "What kind of animal is {a}?",
            "What is {a}?",
            "What type of animal is {a}?",
            "As for {a}, what kind of animal is it?",
            "Speaking of {a}, what type of animal is it?",
            "If you look at {a}, what type of animal do you see?",
            "Every {s} is which kind of animal?",
            "Which kind of animal is the {s}?",
            "What do we call the kind of animal that {a} is?",
        ),
        heldout=(
            "If you see {a}, what kind of animal do you see?",
            "{a} is what kind of animal?",
        ),
        follow_up=_WHAT_ABOUT_A,
    ),
    Relation(
        name="animal_home",
        topic="animals",
        title="Animals and their homes",
        table="""
        camel=the desert|desert; penguin=Antarctica~the ocean; whale=the ocean|ocean~Antarctica;
        monkey=the forest|forest; earthworm=the soil|soil~the forest; bat=a cave|cave~the forest;
        polar bear=the Arctic|Arctic; frog=a pond|pond~the forest~the soil;
        bee=a hive|hive~the forest; spider=a web|web~the forest~a cave~the soil;
        bird=a nest|nest~the forest~the Arctic~the desert~Antarctica
        """,
        statements=(
            "{a} lives in {v}.",
            "You can find {a} in {v}.",
            "{a} makes its home in {v}.",
            "If you look in {v}, you may see {a}.",
            "The home of {a} is in {v}.",
            "If you want to see {a}, look in {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "where does {a} live",
                    "where can you see {a}",
                ),
                indirect=(
                    "where {a} lives",
                    "where we can find the home of {a}",
                ),
                thing="the home of {a}",
            ),
            "Where does {a} live?",
            "Where can you find {a}?",
            "Where does {a} make its home?",
            "As for {a}, where does it live?",
            "Speaking of {a}, where is its home?",
            "If you look for {a}, where do you find it?",
            "If you want to find {a}, where do you go?",
            "In what place does {a} live?",
            "What is the home of {a}?",
        ),
        heldout=(
            "Where do you look if you want to see {a}?",
            "Where is the home of {a}?",
        ),
        follow_up=_WHAT_ABOUT_A,
    ),
    Relation(
        name="animal_sound",
        topic="animals",
        title="Animals and their sounds",
        table="""
        cat=meow; dog=woof; cow=moo; sheep=baa; duck=quack; pig=oink; horse=neigh; snake=hiss;
        lion=roar; bee=buzz; owl=hoot
        """,
        statements=(
            "{a} says {v}.",
            "The sound of {a} is {v}.",
            "{a} makes the sound {v}.",
            "{a} goes {v}.",
            "If you hear {v}, it may be {a}.",
            "{v} is how {a} sounds.",
            "If you listen to {a}, you hear {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what sound does {a} make",
                    "what does {a} say",
                ),
                indirect=(
                    "what sound {a} makes",
                    "how {a} sounds",
                ),
                thing="the sound of {a}",
            ),
            "What sound does {a} make?",
            "What does {a} say?",
            "What is the sound of {a}?",
            "As for {a}, what sound does it make?",
            "Speaking of {a}, what does it say?",
            "If you listen to {a}, what do you hear?",
            "{a} makes which sound?",
            "Which sound is the sound of {a}?",
            "You hear {a}. What does it say?",
        ),
        heldout=("If you hear {a}, what sound is it?", "How does {a} sound?"),
        follow_up=_WHAT_ABOUT_A,
    ),
    Relation(
        name="animal_young",
        topic="animals",
        title="Animals and their babies",
        table="""
        cat=a kitten|kitten; dog=a puppy|puppy; cow=a calf|calf; sheep=a lamb|lamb;
        horse=a foal|foal; pig=a piglet|piglet; duck=a duckling|duckling; bear=a cub|cub;
        frog=a tadpole|tadpole; kangaroo=a joey|joey; deer=a fawn|fawn
        """,
        statements=(
            "A baby {s} is called {v}.",
            "A young {s} is called {v}.",
            "{v} is a baby {s}.",
            "We call a baby {s} {v}.",
            "{v} grows up to be {a}.",
            "The name for a baby {s} is {v}.",
            "The baby of {a} is {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what is a baby {s} called",
                    "what do people call the baby of {a}",
                ),
                indirect=(
                    "what a baby {s} is called",
                    "what grows up and becomes {a}",
                ),
                thing="the baby of {a}",
            ),
            "What is a baby {s} called?",
            "What is a young {s} called?",
            "What do we call a baby {s}?",
            "As for a baby {s}, what do we call it?",
            "Speaking of a young {s}, what is it called?",
            "If {a} has a baby, what do we call it?",
            "If you see a baby {s}, what do you see?",
            "What grows up to be {a}?",
            "What little animal is a young {s}?",
        ),
        heldout=(
            "What is the name for the baby of {a}?",
            "Which little animal grows up to be {a}?",
        ),
        follow_up="What about a baby {s}?",
    ),
)

CALENDAR: tuple[Relation, ...] = (
    Relation(
        name="weekday",
        topic="calendar",
        title="The next day",
        table="""
        Monday=Tuesday; Tuesday=Wednesday; Wednesday=Thursday; Thursday=Friday; Friday=Saturday;
        Saturday=Sunday; Sunday=Monday
        """,
        statements=(
            "The day after {s} is {v}.",
            "After {s} comes {v}.",
            "{v} follows {s}.",
            "If today is {s}, tomorrow is {v}.",
            "Yesterday was {s}, so today is {v}.",
            "If yesterday was {s}, it is {v} now.",
            "{s} is followed by {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what day comes after {s}",
                    "what is the day after {s}",
                ),
                indirect=(
                    "what day comes after {s}",
                    "which day it is after {s}",
                ),
                thing="the day after {s}",
            ),
            "What is the day after {s}?",
            "What day comes after {s}?",
            "If today is {s}, what day is tomorrow?",
            "As for {s}, what day comes after it?",
            "Speaking of {s}, what is the next day?",
            "If yesterday was {s}, what day is today?",
            "If it is {s} now, what is the next day?",
            "{s} is followed by which day?",
            "What day is it that follows {s}?",
        ),
        heldout=("Which day follows {s}?", "Yesterday was {s}, so what day is it now?"),
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="month",
        topic="calendar",
        title="The next month",
        table="""
        January=February; February=March; March=April; April=May; May=June; June=July; July=August;
        August=September; September=October; October=November; November=December;
        December=January
        """,
        statements=(
            "The month after {s} is {v}.",
            "After {s} comes {v}.",
            "{v} comes after {s}.",
            "It was {s} last month, so it is {v} now.",
            "{v} follows {s}.",
            "If it is {s} now, the next month is {v}.",
            "{s} is followed by {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what month comes after {s}",
                    "what is the month after {s}",
                ),
                indirect=(
                    "what month comes after {s}",
                    "which month it is after {s}",
                ),
                thing="the month after {s}",
            ),
            "What is the month after {s}?",
            "What month comes after {s}?",
            "If it is {s} now, what is the next month?",
            "As for {s}, what month comes after it?",
            "Speaking of {s}, what is the next month?",
            "If it was {s} last month, what month is this?",
            "{s} is followed by which month?",
            "What month is it that follows {s}?",
            "The last month was {s}, so what is this month?",
        ),
        heldout=("Which month follows {s}?", "It was {s} last month, so what month is it now?"),
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="season",
        topic="calendar",
        title="The four seasons",
        table="spring=summer; summer=autumn|fall; autumn=winter; winter=spring",
        statements=(
            "The season after {s} is {v}.",
            "After {s} comes {v}.",
            "{v} comes after {s}.",
            "{v} follows {s}.",
            "It was {s} before, so now it is {v}.",
            "If it is {s} now, the next season is {v}.",
            "{s} is followed by {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what season comes after {s}",
                    "what is the season after {s}",
                ),
                indirect=(
                    "what season comes after {s}",
                    "which season it is after {s}",
                ),
                thing="the season after {s}",
            ),
            "What is the season after {s}?",
            "What season comes after {s}?",
            "What comes after {s}?",
            "As for {s}, what season comes after it?",
            "Speaking of {s}, what is the next season?",
            "If it is {s} now, what is the next season?",
            "{s} is followed by which season?",
            "What season is it that follows {s}?",
            "It was {s} before, so what is it now?",
        ),
        heldout=("Which season follows {s}?", "It was {s}, so what season is it now?"),
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="festival_date",
        topic="calendar",
        title="Festivals and dates",
        table="""
        New Year's Day=January 1; Valentine's Day=February 14; Women's Day=March 8;
        Earth Day=April 22; Labor Day in China=May 1; Children's Day in China=June 1;
        Teachers' Day in China=September 10; National Day in China=October 1;
        Halloween=October 31; Christmas=December 25
        """,
        statements=(
            "{s} is on {v}.",
            "{s} comes on {v}.",
            "People celebrate {s} on {v}.",
            "The date of {s} is {v}.",
            "Every year, {s} is on {v}.",
            "The day of the year for {s} is {v}.",
            "If it is {v}, it is time for {s}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "when is {s}",
                    "what date does {s} come on",
                ),
                indirect=(
                    "when {s} is",
                    "on what day people celebrate {s}",
                ),
                thing="the date of {s}",
            ),
            "When is {s}?",
            "What is the date of {s}?",
            "When do people celebrate {s}?",
            "As for {s}, when is it?",
            "Speaking of {s}, on what date is it?",
            "If you want to celebrate {s}, what day do you wait for?",
            "If you look for {s} on the calendar, which day do you find?",
            "{s} comes on which day of the year?",
            "On which date do people celebrate {s}?",
        ),
        heldout=("On what day of the year is {s}?", "Which date is {s}?"),
        follow_up=_WHAT_ABOUT,
    ),
)

LANGUAGE: tuple[Relation, ...] = (
    Relation(
        name="antonym",
        topic="language",
        title="Opposites",
        table="""
        big=small; hot=cold; up=down; long=short; fast=slow; happy=sad; new=old;
        good=bad; heavy=light; day=night; open=closed; full=empty; clean=dirty; wet=dry;
        rich=poor; strong=weak; deep=shallow; near=far; loud=quiet;
        left=right; true=false; high=low; push=pull; buy=sell; love=hate; easy=difficult
        """,
        statements=(
            "The opposite of {s} is {v}.",
            "{v} is the opposite of {s}.",
            "{s} and {v} are opposites.",
            "{s} is the opposite of {v}.",
            "The word {v} means the opposite of {s}.",
            "For the opposite of {s}, say {v}.",
            "The words {s} and {v} have opposite meanings.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what is the opposite of {s}",
                    "which word is the opposite of {s}",
                ),
                indirect=(
                    "which word has the opposite meaning of {s}",
                    "what the opposite of {s} is",
                ),
            ),
            "What is the opposite of {s}?",
            "What word is the opposite of {s}?",
            "What word means the opposite of {s}?",
            "As for {s}, what is its opposite?",
            "Speaking of {s}, which word is its opposite?",
            "If you want the opposite of {s}, what word do you use?",
            "The word {s} means the opposite of what?",
            "{s} has which word as its opposite?",
            "Which word means the opposite of {s}?",
            "Name the word that is the opposite of {s}.",
        ),
        heldout=("{s} is the opposite of which word?", "Do you know the opposite of {s}?"),
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="color",
        topic="nature",
        title="Things and their colors",
        table="""
        grass=green~yellow; the sky=blue~gray~white~black; the sea=blue~green;
        snow=white; milk=white; coal=black; blood=red; a strawberry=red;
        a tomato=red~green~yellow; a banana=yellow~green; a lemon=yellow~green;
        a carrot=orange~red~yellow; an eggplant=purple; an elephant=gray;
        chocolate=brown~black~white
        """,
        statements=(
            "{s} is {v}.",
            "The color of {s} is {v}.",
            "{s} has the color {v}.",
            "If you look at {s}, you see {v}.",
            "We know that {s} is {v}.",
            "As for its color, {s} is {v}.",
            "{v} is the color of {s}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what color is {s}",
                    "which color does {s} have",
                ),
                indirect=(
                    "which color {s} has",
                    "what color {s} is",
                ),
                thing="the color of {s}",
            ),
            "What color is {s}?",
            "What is the color of {s}?",
            "Do you know what color {s} is?",
            "As for {s}, what color is it?",
            "Speaking of {s}, what is its color?",
            "If you see {s}, what color do you see?",
            "If you want to paint {s}, which color do you use?",
            "{s} is what color?",
            "Look at {s}. Which color is it?",
        ),
        heldout=(
            "Which color do you see if you look at {s}?",
            "{s} has which color?",
        ),
        follow_up=_WHAT_ABOUT,
    ),
)

PEOPLE: tuple[Relation, ...] = (
    Relation(
        name="inventor",
        topic="people",
        title="Inventions and inventors",
        table="""
        the telephone=Alexander Graham Bell|Bell; the phonograph=Thomas Edison|Edison;
        the airplane=the Wright brothers|Wright brothers; dynamite=Alfred Nobel|Nobel;
        the World Wide Web=Tim Berners-Lee|Berners-Lee;
        the printing press=Johannes Gutenberg|Gutenberg; the battery=Alessandro Volta|Volta;
        the lightning rod=Benjamin Franklin|Franklin
        """,
        statements=(
            "{s} was invented by {v}.",
            "{v} invented {s}.",
            "We know that {v} invented {s}.",
            "{s} is the work of {v}.",
            "People thank {v} for {s}.",
            "The inventor of {s} is {v}.",
            "For {s}, we thank {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "who invented {s}",
                    "by whom was {s} invented",
                ),
                indirect=(
                    "whose work {s} is",
                    "who invented {s}",
                ),
                thing="the inventor of {s}",
            ),
            "Who invented {s}?",
            "{s} was invented by whom?",
            "Do you know who invented {s}?",
            "As for {s}, who invented it?",
            "Speaking of {s}, whose work is it?",
            "If you want to thank the inventor of {s}, who do you thank?",
            "Who is the inventor of {s}?",
            "{s} is whose work?",
            "For {s}, who do we thank?",
        ),
        heldout=("Who do people thank for {s}?", "{s} is the work of whom?"),
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="author",
        topic="people",
        title="Books and writers",
        table="""
        Hamlet=William Shakespeare|Shakespeare;
        Oliver Twist=Charles Dickens|Dickens; War and Peace=Leo Tolstoy|Tolstoy;
        Journey to the West=Wu Cheng'en; Dream of the Red Chamber=Cao Xueqin;
        Robinson Crusoe=Daniel Defoe|Defoe; Alice in Wonderland=Lewis Carroll|Carroll;
        The Little Mermaid=Hans Christian Andersen|Andersen; Peter Pan=J. M. Barrie|Barrie;
        Pride and Prejudice=Jane Austen|Austen
        """,
        statements=(
            "{s} was written by {v}.",
            "{v} wrote {s}.",
            "The author of {s} is {v}.",
            "The writer of {s} is {v}.",
            "{s} is the work of {v}.",
            "The name of the author of {s} is {v}.",
            "If you read {s}, you read the work of {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "who wrote {s}",
                    "who is the writer of {s}",
                ),
                indirect=(
                    "who wrote {s}",
                    "whose work {s} is",
                    "what the author of {s} is called",
                ),
                thing="the author of {s}",
            ),
            "Who wrote {s}?",
            "Who is the author of {s}?",
            "{s} was written by whom?",
            "As for {s}, who wrote it?",
            "Speaking of {s}, whose work is it?",
            "If you read {s}, whose work do you read?",
            "Which writer wrote {s}?",
            "{s} is whose work?",
            "For {s}, who do we thank?",
        ),
        heldout=("What is the name of the writer of {s}?", "{s} is the work of which writer?"),
        follow_up=_WHAT_ABOUT,
    ),
    Relation(
        name="workplace",
        topic="people",
        title="People and their places of work",
        table="""
        doctor=a hospital|hospital; teacher=a school|school; cook=a kitchen|kitchen;
        judge=a court|court; scientist=a lab|lab; actor=a theater|theater;
        worker=a factory|factory; waiter=a restaurant|restaurant~a kitchen
        """,
        statements=(
            "{a} works in {v}.",
            "You can meet {a} in {v}.",
            "{a} goes to work in {v}.",
            "If you look in {v}, you may see {a} at work.",
            "If you want to meet {a}, go to {v}.",
            "Look for {a} in {v}.",
            "The work of {a} is done in {v}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "where does {a} work",
                    "where do people meet {a}",
                ),
                indirect=(
                    "where {a} works",
                    "where we can find {a} at work",
                ),
                thing="the place of work of {a}",
            ),
            "Where does {a} work?",
            "Where can you meet {a}?",
            "Where does {a} go to work?",
            "As for {a}, where is the place of work?",
            "Speaking of {a}, where do we meet one at work?",
            "If you look for {a}, where do you find one?",
            "If you need {a}, where do you look?",
            "In what place does {a} work?",
            "What is the place of work of {a}?",
        ),
        heldout=(
            "Where do you look for {a} at work?",
            "If you want to meet {a}, where do you go?",
        ),
        follow_up=_WHAT_ABOUT_A,
    ),
    Relation(
        name="made_from",
        topic="nature",
        title="Things and what they are made from",
        table="""
        paper=wood; glass=sand; tofu=soybeans; bread=flour; chocolate=cocoa beans; cheese=milk;
        wine=grapes; ice=water
        """,
        statements=(
            "{s} is made from {v}.",
            "We make {s} from {v}.",
            "To make {s}, we need {v}.",
            "People use {v} to make {s}.",
            "You can make {s} from {v}.",
            "If you want to make {s}, you need {v}.",
            "{v} can be made into {s}.",
        ),
        questions=(
            *_asked(
                direct=(
                    "what is {s} made from",
                    "what can we make {s} from",
                ),
                indirect=(
                    "what {s} is made from",
                    "what people need to make {s}",
                ),
            ),
            "What is {s} made from?",
            "What do we make {s} from?",
            "What do we need to make {s}?",
            "As for {s}, what is it made from?",
            "Speaking of {s}, what do we make it from?",
            "If people make {s}, what do they use?",
            "If you have {s}, what was it made from?",
            "{s} is made from what?",
            "To make {s}, what do we use first?",
            "Name what {s} is made from.",
            "What can be made into {s}?",
        ),
        heldout=(
            "What do people use to make {s}?",
            "If you want to make {s}, what do you need first?",
        ),
        follow_up=_WHAT_ABOUT,
    ),
)

RELATIONS: tuple[Relation, ...] = GEOGRAPHY + SCIENCE + ANIMALS + CALENDAR + LANGUAGE + PEOPLE
